import cv2
import numpy as np
import pytest

from mobilevit_jax.data import augment
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
from mobilevit_jax.data.sources import digits
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.data.transforms import presets
from tests.data import tiny_batches


def test_batches_are_those_of_the_plan(source, expected):
  plan = tiny_batches.make_plan()
  assert plan.shapes == [(16, 8), (24, 4)]
  assert len(expected) == len(plan)
  assert {plan.size(t) for t in range(len(plan))} == {16, 24}
  for t, batch in enumerate(expected):
    planned = plan[t]
    shape = (planned.batch, planned.size, planned.size, 3)
    assert batch["images"].shape == shape
    assert batch["images"].dtype == np.uint8
    assert batch["labels"].dtype == np.int32
    labels = [source[i].target["label"] for i in planned.ids]
    assert batch["labels"].tolist() == labels
    assert batch["ids"].dtype == batch["sizes"].dtype == np.int32
    assert batch["ids"].tolist() == planned.ids.tolist()
    sizes = [augment.decode(source[i].image, "").shape[:2] for i in planned.ids]
    assert batch["sizes"].tolist() == [[*size] for size in sizes]
    spec = pipeline.batch_spec(
      classify.ClassifyTransform(), planned.size, train=True
    )
    assert {k: (v.shape[1:], v.dtype.type) for k, v in batch.items()} == spec


def _by_example(source, plan, **overrides):
  """Images by (epoch, example, size)."""
  return {
    (plan.epoch(t), int(index), plan.size(t)): image
    for t, batch in enumerate(tiny_batches.train(source, plan, **overrides))
    for index, image in zip(plan.ids(t), batch["images"], strict=True)
  }


def test_image_depends_on_seed_epoch_and_example_alone(source):
  ours = _by_example(source, tiny_batches.make_plan())
  # Another order, other batches: what the two have in common is the same.
  theirs = _by_example(source, tiny_batches.make_plan(seed=2, batch_multiple=6))
  common = ours.keys() & theirs.keys()
  assert len(common) > 10
  for key in common:
    np.testing.assert_array_equal(ours[key], theirs[key])

  others = _by_example(
    source, tiny_batches.make_plan(), seed=tiny_batches.SEED + 1
  )
  assert not any(np.array_equal(ours[key], others[key]) for key in ours)

  pairs = [(key, (key[0] + 1, *key[1:])) for key in ours]
  again = [(now, later) for now, later in pairs if later in ours]
  assert len(again) > 5
  assert not any(np.array_equal(ours[a], ours[b]) for a, b in again)


def test_augmentation_off_is_a_plain_resize():
  source = sources.make_source("digits", "test")
  plan = tiny_batches.make_plan(len(source), num_epochs=None, num_steps=3)
  whole = {"crop_scale": (1, 1), "crop_ratio": (1, 1)}
  for flip in (0, 1):
    transform = classify.ClassifyTransform(flip=flip, **whole)
    batches = tiny_batches.train(source, plan, transform=transform)
    for t, batch in enumerate(batches):
      side = (plan.size(t), plan.size(t))
      for index, image in zip(plan.ids(t), batch["images"], strict=True):
        pixels = cv2.resize(np.asarray(source[index].image), side)
        np.testing.assert_array_equal(
          image, pixels[:, ::-1] if flip else pixels
        )


def test_any_start_gives_the_rest(source, expected):
  for start in (0, 1, len(expected) - 1, len(expected)):
    tiny_batches.assert_equal(
      tiny_batches.train(source, start_step=start), expected[start:]
    )
  tiny_batches.assert_equal(
    tiny_batches.train(source, start_step=2, stop_step=5), expected[2:5]
  )


@pytest.mark.parametrize("process_count", [2, 4])
def test_hosts_make_up_the_global_batch(source, expected, process_count):
  hosts = [
    tiny_batches.train(source, process_index=p, process_count=process_count)
    for p in range(process_count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for parts in zip(*hosts, strict=True)
  ]
  tiny_batches.assert_equal(joined, expected)


@pytest.mark.parametrize(
  ("num_images", "batch", "process_count"),
  [
    (7, 4, 1),
    (7, 4, 2),
    (7, 8, 8),  # the last host has nothing but padding
    (1, 6, 3),
    (8, 4, 2),
  ],
)
def test_eval_gives_every_image_once(
  tmp_path, num_images, batch, process_count
):
  tiny_batches.write_images(tmp_path / "val", num_images)
  source = sources.make_source("folder", "val", data_dir=tmp_path)
  hosts = [
    tiny_batches.evaluate(
      source,
      size=16,
      batch=batch,
      process_index=p,
      process_count=process_count,
    )
    for p in range(process_count)
  ]
  count = -(-num_images // batch)
  assert [len(host) for host in hosts] == [count] * process_count
  share = batch // process_count
  for part in (part for host in hosts for part in host):
    assert part["images"].shape == (share, 16, 16, 3)
    assert part["images"].dtype == np.uint8
    assert part["labels"].dtype == np.int32
    assert part["batch_mask"].dtype == np.float32

  # Batch by batch, and in it host by host, are the images in their order.
  images, labels, mask = (
    np.concatenate([host[b][key] for b in range(count) for host in hosts])
    for key in ("images", "labels", "batch_mask")
  )
  padding = count * batch - num_images
  assert mask.tolist() == [1] * num_images + [0] * padding
  assert not images[num_images:].any() and not labels[num_images:].any()
  for index in range(num_images):
    example = source[index]
    pixels = augment.decode(example.image, example.name)
    np.testing.assert_array_equal(
      images[index], augment.resize_and_center_crop(pixels, 16)
    )
    assert labels[index] == example.target["label"]


def test_eval_resize_size_is_used(source):
  (batch,) = tiny_batches.evaluate(
    source,
    classify.ClassifyTransform(resize_size=32),
    size=16,
    batch=tiny_batches.NUM_IMAGES,
  )
  for index, image in enumerate(batch["images"]):
    pixels = augment.decode(source[index].image, "")
    expected = augment.resize_and_center_crop(pixels, 16, resize_size=32)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_eval_preset_is_used(source, preset):
  (batch,) = tiny_batches.evaluate(
    source,
    classify.ClassifyTransform(preset=preset),
    size=16,
    batch=tiny_batches.NUM_IMAGES,
  )
  for index, image in enumerate(batch["images"]):
    expected = presets.preprocess(source[index].image, preset, 16)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (
      {"plan": tiny_batches.make_plan(9)},
      "source=folder/train has 23 examples.* 9$",
    ),
    ({"start_step": -1}, "start_step=-1, stop_step=[0-9]+ must rise"),
    ({"start_step": 3, "stop_step": 2}, "start_step=3, stop_step=2 must rise"),
    ({"stop_step": 1000}, "stop_step=1000 must rise"),
    ({"process_count": 3}, "process_count=3 must divide"),
    ({"process_index": 1}, "process_index=1 must be in"),
    ({"num_workers": -1}, "num_workers=-1 must be at least 0"),
    ({"num_threads": 0}, "num_threads=0 must be at least 1"),
    ({"prefetch_batches": 0}, "prefetch_batches=0 must be at least 1"),
  ],
)
def test_impossible_arguments_are_refused(source, overrides, message):
  with pytest.raises(ValueError, match=message):
    tiny_batches.train(source, **overrides)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"crop_scale": (0, 1)}, r"crop_scale=\(0, 1\) must rise"),
    ({"crop_scale": (0.5, 0.2)}, r"crop_scale=\(0.5, 0.2\) must rise"),
    ({"crop_scale": (0.5, 2)}, r"crop_scale=\(0.5, 2\) must rise"),
    ({"crop_ratio": (0, 1)}, r"crop_ratio=\(0, 1\) must rise"),
    ({"crop_ratio": (2, 1)}, r"crop_ratio=\(2, 1\) must rise"),
    ({"flip": 2}, r"flip=2 must lie in \[0, 1\]"),
    ({"flip": -0.1}, r"flip=-0.1 must lie in \[0, 1\]"),
  ],
)
def test_impossible_augmentation_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    classify.ClassifyTransform(**fields)


class Upright(classify.ClassifyTransform):
  """Leaves images the size that they have."""

  keeps_aspect = True

  def spec(self, size, *, train):
    sides = (size, size) if isinstance(size, int) else size
    return {"images": ((*sides, 3), np.uint8)}

  def shape(self, example, size):
    return augment.decode(example.image, example.name).shape[:2]

  def evaluate(self, example, size):
    assert example.image.shape[:2] == size
    return {"images": example.image}


@pytest.mark.parametrize("process_count", (1, 2))
def test_images_that_keep_their_aspect_share_batches_with_their_like(
  process_count,
):
  shapes = [(8, 12), (9, 9), (8, 12), (12, 8), (8, 12), (9, 9), None, (8, 12)]
  images = [
    b"broken" if s is None else np.full((*s, 3), i, np.uint8)
    for i, s in enumerate(shapes)
  ]
  labels = np.zeros(len(images), np.int32)
  source = digits.ArraySource("mixed", np.empty(0), labels, ("one",))
  source._images = images
  plan = pipeline.eval_plan(source, Upright(), size=8, batch=2)
  assert [(b.size, b.ids.tolist()) for b in plan] == [
    ((8, 12), [0, 2]),
    ((8, 12), [4, 7]),
    ((8, 12), [6]),
    ((9, 9), [1, 5]),
    ((12, 8), [3]),
  ]
  hosts = []
  for process in range(process_count):
    with pipeline.eval_batches(
      source,
      Upright(),
      size=8,
      batch=2,
      on_bad_image="replace",
      process_index=process,
      process_count=process_count,
    ) as batches:
      hosts.append([*batches])
  seen = []
  for number, planned in enumerate(plan):
    for host in hosts:
      batch = host[number]
      shape = (2 // process_count, *planned.size, 3)
      assert batch["images"].shape == shape
      real = batch["batch_mask"] > 0
      seen += batch["ids"][real].tolist()
      for index, image in zip(
        batch["ids"][real], batch["images"][real], strict=True
      ):
        np.testing.assert_array_equal(image, images[index])
  assert sorted(seen) == [0, 1, 2, 3, 4, 5, 7]
