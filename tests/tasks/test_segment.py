"""Segmentation: the loss by hand, the meter bit for bit, pictures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from mobilevit_jax.models.heads import deeplabv3
from mobilevit_jax.tasks import segment

K = 3


class Truths:
  """Masks of many sizes, with ignored pixels."""

  class_names = ("ground", "cat", "dog")

  def __init__(self, count=9, seed=0):
    rng = np.random.default_rng(seed)
    values = np.array([0, 1, 2, 255], np.uint8)
    self.masks = [
      values[rng.integers(0, 4, rng.integers(5, 40, 2))] for _ in range(count)
    ]

  def mask(self, index):
    return self.masks[index]


def rows_of(source, *, logits=False, seed=1):
  rng = np.random.default_rng(seed)
  count = len(source.masks)
  rows = {"ids": np.arange(count)}
  if logits:
    rows["logits"] = rng.normal(size=(count, 4, 5, K)).astype(np.float32)
    return rows | {"aligned": np.full(count, True)}
  return rows | {
    "classes": rng.integers(0, K, (count, 16, 16)).astype(np.uint8)
  }


def measured(source, rows, order, size):
  """The counts, of rows in an order and in batches of a size."""
  meter = segment.Confusion(source, K)
  for first in range(0, len(order), size):
    ids = order[first : first + size]
    meter.add({name: value[ids] for name, value in rows.items()})
  return meter


def losses(logits, masks, **fields):
  task = segment.Segment(K, **fields)
  return float(task.pixel_loss(jnp.asarray(logits), jnp.asarray(masks)))


def example(seed=0, ignored=0.3):
  rng = np.random.default_rng(seed)
  masks = rng.integers(0, K, (2, 5, 6))
  masks[rng.random(masks.shape) < ignored] = 255
  return rng.normal(size=(2, 5, 6, K)), masks


@pytest.mark.parametrize("logits", (False, True))
def test_meter_is_the_same_in_any_order_batch_and_process(logits):
  source = Truths()
  rows = rows_of(source, logits=logits)
  expected = measured(source, rows, np.arange(9), 9).counts
  total = sum((mask != 255).sum() for mask in source.masks)
  assert expected.sum() == total
  rng = np.random.default_rng(2)
  for size in (1, 2, 4, 9):
    found = measured(source, rows, rng.permutation(9), size).counts
    np.testing.assert_array_equal(found, expected)
  for processes in (2, 3):
    parts = [
      measured(source, rows, np.arange(9)[p::processes], 2)
      for p in range(processes)
    ]
    whole = parts[0]
    stacked = np.stack([part.counts for part in parts])
    whole.merge(lambda own, stacked=stacked: stacked)
    np.testing.assert_array_equal(whole.counts, expected)


def test_meter_is_scikit_learns():
  source = Truths()
  rows = rows_of(source)
  meter = measured(source, rows, np.arange(9), 4)
  truth, found = [], []
  for mask, classes in zip(source.masks, rows["classes"], strict=True):
    height, width = mask.shape
    # torch's and OpenCV's nearest: floor(i * 16 / height).
    near = classes[np.arange(height) * 16 // height][
      :, np.arange(width) * 16 // width
    ]
    valid = mask != 255
    truth.append(mask[valid])
    found.append(near[valid])
  truth, found = np.concatenate(truth), np.concatenate(found)
  np.testing.assert_array_equal(
    meter.counts, metrics.confusion_matrix(truth, found)
  )
  result = meter.result()
  ious = metrics.jaccard_score(truth, found, average=None)
  assert [result[f"iou_{n}"] for n in source.class_names] == ious.tolist()
  assert result["miou"] == pytest.approx(ious.mean(), abs=1e-15)
  accuracy = metrics.accuracy_score(truth, found)
  assert result["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-15)


def test_a_class_of_nothing_is_no_part_of_the_mean():
  counts = np.array([[5, 1, 0], [2, 4, 0], [0, 0, 0]])
  np.testing.assert_allclose(segment.iou(counts), [5 / 8, 4 / 7, np.nan])
  meter = segment.Confusion(Truths(), K)
  meter.counts = counts
  assert meter.result() == {
    "miou": (5 / 8 + 4 / 7) / 2,
    "pixel_accuracy": 9 / 12,
    "iou_ground": 5 / 8,
    "iou_cat": 4 / 7,
  }


def test_a_net_may_know_more_classes_than_the_data():
  source = Truths()
  meter = segment.Confusion(source, K + 2)
  rows = rows_of(source)
  rows["classes"][:] = K + 1
  meter.add(rows)
  assert meter.result()["miou"] == 0
  assert set(meter.result()) == {
    "miou",
    "pixel_accuracy",
    *(f"iou_{name}" for name in source.class_names),
  }


def test_cross_entropy_is_the_mean_over_the_pixels_that_count():
  logits, masks = example()
  shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  valid = masks != 255
  own = np.take_along_axis(
    shares, np.where(valid, masks, 0)[..., None], axis=-1
  )[..., 0]
  expected = -np.log(own[valid]).mean()
  assert losses(logits, masks) == pytest.approx(expected, rel=1e-6)
  changed = np.where(valid[..., None], logits, 100 * logits)
  assert losses(changed, masks) == pytest.approx(expected, rel=1e-6)
  focal = ((1 - own[valid]) ** 2 * -np.log(own[valid])).mean()
  assert losses(logits, masks, focal=2.0) == pytest.approx(focal, rel=1e-6)
  # ml-cvnets main's weights, by the shares in the batch.
  counts = np.bincount(masks[valid], minlength=K)
  weights = (1 / np.log(1.1 + counts / counts.sum()))[masks[valid]]
  weighted = (weights * -np.log(own[valid])).sum() / weights.sum()
  found = losses(logits, masks, class_weights="frequency")
  assert found == pytest.approx(weighted, rel=1e-6)


def test_all_pixels_ignored_cost_nothing():
  logits, masks = example(ignored=2)
  for fields in ({}, {"dice": 1.0}, {"class_weights": "frequency"}):
    task = segment.Segment(K, **fields)
    loss, grad = jax.value_and_grad(task.pixel_loss)(
      jnp.asarray(logits), jnp.asarray(masks)
    )
    assert loss == 0
    assert not np.any(grad)


def test_dice_is_nothing_for_the_truth_itself():
  _, masks = example()
  right = 40.0 * (masks[..., None] == np.arange(K))
  assert losses(right, masks, dice=1.0) == pytest.approx(0, abs=1e-5)
  wrong = np.roll(right, 1, axis=-1)
  gain = losses(wrong, masks, dice=1.0) - losses(wrong, masks)
  assert gain == pytest.approx(1, abs=1e-5)


class Net:
  """Gives coarse logits that are a function of the image's colour."""

  class head:  # noqa: N801
    aligned = True

    @staticmethod
    def enlarge(logits, height, width):
      rows, columns = (
        deeplabv3.resize_weights(side, to, aligned=True)
        for side, to in zip(logits.shape[1:3], (height, width), strict=True)
      )
      return jnp.einsum("Hh,Ww,bhwk->bHWk", rows, columns, logits)

  auxiliary = None

  def __call__(self, images, train=False, rngs=None):
    logits = images[:, ::4, ::4]
    return {"logits": logits, "auxiliary": -logits} if train else logits


def test_auxiliary_loss_weighs_two_fifths():
  rng = np.random.default_rng(0)
  batch = {
    "images": jnp.asarray(rng.random((2, 16, 16, 3))),
    "masks": jnp.asarray(rng.integers(0, K, (2, 16, 16)), jnp.uint8),
  }
  task = segment.Segment(K)
  logits = Net.head.enlarge(batch["images"][:, ::4, ::4], 16, 16)
  parts = [task.pixel_loss(sign * logits, batch["masks"]) for sign in (1, -1)]
  loss, metrics_ = task.loss(
    Net(), {}, batch, jax.random.key(0), {}, jnp.zeros(())
  )
  assert float(loss) == pytest.approx(float(parts[0] + 0.4 * parts[1]))
  hits = np.asarray(jnp.argmax(logits, -1) == batch["masks"])
  assert float(metrics_["pixel_accuracy"]) == pytest.approx(hits.mean())


@pytest.mark.parametrize("shape", ((64, 96), (64, 64), (80, 72)))
def test_windows_cover_the_image_and_agree_with_one(shape):
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.random((2, *shape, 3)), jnp.float32)
  whole = segment.Segment(K, protocol="slide", window=shape[0] + 64)
  one = whole.outputs(Net(), {"images": images})["classes"]
  stretch = segment.Segment(K).outputs(Net(), {"images": images})["classes"]
  np.testing.assert_array_equal(one, stretch)

  # A net that looks at each pixel alone sees the same through any window.
  class Pixels(Net):
    def __call__(self, images, train=False, rngs=None):
      return images

  expected = jnp.argmax(images, axis=-1)
  for overlap in (0.0, 0.5, 0.9):
    task = segment.Segment(K, protocol="slide", window=32, overlap=overlap)
    found = task.outputs(Pixels(), {"images": images})["classes"]
    np.testing.assert_array_equal(found, expected)


def test_windows_start_and_end_at_the_edges():
  for side, overlap in itertools.product(range(32, 100, 7), (0.0, 0.3, 0.5)):
    starts = segment._starts(side, 32, overlap)
    assert (starts[0], starts[-1]) == (0, side - 32)
    steps = np.diff(starts)
    assert all(steps <= 32 * (1 - overlap) + 1)


def test_aspect_enlarges_logits_to_the_original_size():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 6, K)).astype(np.float32)
  outputs = {"logits": logits, "aligned": np.True_}
  found = segment.classes_of(outputs, 37, 50)
  large = Net.head.enlarge(jnp.asarray(logits)[None], 37, 50)[0]
  np.testing.assert_array_equal(found, jnp.argmax(large, axis=-1))
  assert segment.classes_of(outputs).shape == (4, 6)


def test_shares_pictures_and_palettes():
  task = segment.Segment(K)
  classes = np.zeros((10, 20), np.uint8)
  classes[:5, :10] = 2
  names = ("ground", "cat", "dog")
  assert task.describe({"classes": classes}, names, 5) == [
    {"class": 0, "label": "ground", "share": 0.75},
    {"class": 2, "label": "dog", "share": 0.25},
  ]
  image = np.full((20, 40, 3), 100, np.uint8)
  drawn = task.draw(image, {"classes": classes}, names)
  assert drawn.shape[0] > 20 and drawn.shape[1] >= 40  # the legend below
  np.testing.assert_array_equal(drawn[10:20, :20], 100)
  assert (drawn[:10, :20] != 100).any(axis=-1).all()
  mask = task.picture({"classes": classes}, (20, 40))
  assert (mask.mode, mask.size) == ("P", (40, 20))
  np.testing.assert_array_equal(np.asarray(mask)[::2, ::2], classes)
  colours = np.asarray(mask.convert("RGB")).reshape(-1, 3)
  assert {*map(tuple, colours.tolist())} == {(0, 0, 0), (0, 128, 0)}


def test_palette_is_pascal_vocs():
  colours = segment.palette()
  # Aeroplane, bicycle, bird; person; tvmonitor; the void around objects.
  known = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    3: (128, 128, 0),
    15: (192, 128, 128),
    20: (0, 64, 128),
    255: (224, 224, 192),
  }
  assert {index: colours[index] for index in known} == known
  assert len(set(colours)) == 256


@pytest.mark.parametrize(
  ("fields", "message"),
  (
    ({"label_smoothing": 1.0}, r"label_smoothing=1\.0"),
    ({"dice": -1.0}, r"dice=-1\.0"),
    ({"protocol": "crop"}, "protocol='crop' must be one of stretch"),
    ({"class_weights": "balanced"}, "class_weights='balanced'"),
    ({"window": 8}, "window=8"),
    ({"num_classes": 255}, "num_classes=255"),
  ),
)
def test_refuses(fields, message):
  with pytest.raises(ValueError, match=message):
    segment.make(None, fields.pop("num_classes", K), **fields)
