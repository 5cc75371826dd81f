"""Broken JPEGs in a folder; those of TFDS sets are in `test_tfds_source`."""

import pathlib

import numpy as np
import pytest

from mobilevit_jax.data import bad_images
from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
from mobilevit_jax.data.transforms import classify
from tests import tiny_imagenet
from tests.data import tiny_batches

NUM_IMAGES = 12
TRANSFORM = classify.ClassifyTransform()
# In the order of their paths: truncated, empty, no image at all.
BROKEN = {2: lambda jpeg: jpeg[:90], 5: lambda _: b"", 11: lambda _: b"text"}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
  """A folder of JPEGs, three of them broken."""
  folder = tmp_path_factory.mktemp("broken")
  for number in range(NUM_IMAGES):
    path = folder / "train" / "ab"[number // 6] / f"{number:02}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    jpeg = tiny_imagenet.image(path.name)
    path.write_bytes(BROKEN.get(number, lambda jpeg: jpeg)(jpeg))
  return sources.make_source("folder", "train", data_dir=folder)


def _train(source, **fields):
  plan = tiny_batches.make_plan(NUM_IMAGES, num_epochs=2)
  return tiny_batches.train(source, plan, on_bad_image="replace", **fields)


def _replacements(source):
  return {
    index: bad_images.load(source, TRANSFORM, index, replace=True).example.id
    for index in range(NUM_IMAGES)
  }


def test_others_stand_in_for_broken_images_by_their_id_alone(broken):
  chosen = _replacements(broken)
  assert [i for i, other in chosen.items() if i != other] == [*BROKEN]
  assert not {*chosen.values()} & BROKEN.keys()
  # Not one for all of them, and the same for as long as the project lives.
  assert chosen == {**{i: i for i in range(12)}, 2: 7, 5: 7, 11: 8}


def test_error_policy_names_the_image(broken):
  with pytest.raises(examples.ImageError, match=r"a/02\.jpg: cannot be decode"):
    bad_images.load(broken, TRANSFORM, 2, replace=False)


def test_batches_say_which_ids_were_replaced(broken):
  chosen = _replacements(broken)
  plan = tiny_batches.make_plan(NUM_IMAGES, num_epochs=2)
  for seed in (1, 2):
    for t, batch in enumerate(_train(broken, seed=seed)):
      ids = plan.ids(t)
      assert batch["bad_ids"].dtype == np.int32
      expected = np.where(np.isin(ids, [*BROKEN]), ids, -1)
      np.testing.assert_array_equal(batch["bad_ids"], expected)
      labels = [broken[chosen[int(i)]].target["label"] for i in ids]
      assert batch["labels"].tolist() == labels


def test_replacement_is_augmented_as_what_it_stands_in_for(broken):
  whole = classify.ClassifyTransform((1, 1), (1, 1), 0.0)
  plan = tiny_batches.make_plan(NUM_IMAGES, num_epochs=2)
  batches = _train(broken, transform=whole)
  # Without augmentation it is the other image itself.
  shown = {
    (int(index), plan.size(t)): image
    for t, batch in enumerate(batches)
    for index, image in zip(plan.ids(t), batch["images"], strict=True)
  }
  chosen = _replacements(broken)
  pairs = [((bad, s), (chosen[bad], s)) for bad in BROKEN for s in (16, 24)]
  pairs = [pair for pair in pairs if {*pair} <= shown.keys()]
  assert pairs
  for bad, other in pairs:
    np.testing.assert_array_equal(shown[bad], shown[other])


def test_hosts_threads_and_resumes_change_nothing(broken):
  expected = _train(broken, num_threads=1)
  tiny_batches.assert_equal(_train(broken, num_threads=3), expected)
  tiny_batches.assert_equal(_train(broken, start_step=2), expected[2:])
  hosts = [_train(broken, process_index=p, process_count=2) for p in range(2)]
  joined = [
    {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for parts in zip(*hosts, strict=True)
  ]
  tiny_batches.assert_equal(joined, expected)


def test_broken_images_are_masked_out_in_evaluation(broken):
  batches = tiny_batches.evaluate(
    broken, size=16, batch=5, on_bad_image="replace"
  )
  mask = np.concatenate([batch["batch_mask"] for batch in batches])
  fine = [float(index not in BROKEN) for index in range(NUM_IMAGES)]
  assert mask.tolist() == [*fine, 0, 0, 0]
  assert [batch["images"].shape for batch in batches] == [(5, 16, 16, 3)] * 3
  for batch in batches:
    assert not batch["images"][batch["batch_mask"] == 0].any()
    spec = pipeline.batch_spec(TRANSFORM, 16, train=False)
    assert batch.keys() == spec.keys()


def test_failing_storage_is_never_replaced(broken, tmp_path):
  tiny_batches.write_images(tmp_path / "train", NUM_IMAGES)
  source = sources.make_source("folder", "train", data_dir=tmp_path)
  pathlib.Path(source.place(3)[0]).unlink()
  with pytest.raises(examples.StorageError, match="cannot be read: No such"):
    _train(source)
  with pytest.raises(examples.StorageError, match="cannot be read: No such"):
    tiny_batches.evaluate(source, size=16, batch=4, on_bad_image="replace")


def test_set_without_a_usable_image_is_an_error(tmp_path):
  for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
    path = tmp_path / "train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xd8 no JPEG")
  source = sources.make_source("folder", "train", data_dir=tmp_path)
  with pytest.raises(examples.ImageError, match=r"1\.jpg.*the 16 images that"):
    bad_images.load(source, TRANSFORM, 0, replace=True)


def test_unknown_policy_is_refused(broken):
  with pytest.raises(ValueError, match="on_bad_image='skip' must be one of"):
    tiny_batches.train(
      broken, tiny_batches.make_plan(NUM_IMAGES), on_bad_image="skip"
    )
