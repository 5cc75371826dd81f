"""The detection task: its loss by groups, its meter, what it says and draws."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax.data.boxes import make_boxes
from mobilevit_jax.models.heads import ssdlite
from mobilevit_jax.tasks import average_precision
from mobilevit_jax.tasks import detect
from mobilevit_jax.tasks import ssd

pytest.importorskip("pycocotools")
NAMES = ("cat", "traffic light", "dog")
SIZES = np.array([[60, 80], [100, 50], [70, 70], [40, 90]])


class Source:
  """Truth alone: two to four boxes an image, the last image without any."""

  name, class_names, category_ids = "set", NAMES, (2, 7, 9)

  def __len__(self):
    return len(SIZES)

  def truth(self, index):
    rng = np.random.default_rng(index)
    count = 0 if index == len(SIZES) - 1 else 2 + index
    height, width = SIZES[index]
    low = rng.random((count, 2)) * (width - 30, height - 30)
    high = low + rng.uniform(12, 30, (count, 2))
    rows = [
      (*a, *b, i % 2, i == 3)
      for i, (a, b) in enumerate(zip(low, high, strict=True))
    ]
    return make_boxes(rows)


def outputs(perfect=False):
  """Detections of all images: the truth, or near it with many equal scores."""
  rng = np.random.default_rng(0)
  boxes, scores = np.zeros((4, 8, 4), np.float32), np.zeros((4, 8), np.float32)
  classes = np.zeros((4, 8), np.int32)
  for index, (height, width) in enumerate(SIZES):
    truth = Source().truth(index)
    count = len(truth.boxes)
    found = truth.boxes / (width, height, width, height)
    boxes[index, :count], classes[index, :count] = found, truth.classes
    scores[index, :count] = 1
    if not perfect:
      boxes[index, count:] = [0.1, 0.1, 0.4, 0.5]
      boxes[index] += rng.normal(0, 0.02, (8, 4))
      scores[index] = rng.choice([0.0, 0.25, 0.5, 0.5, 0.75], 8)
      classes[index, count:] = rng.integers(0, 2, 8 - count)
  return {
    "ids": np.arange(4, dtype=np.int32),
    "sizes": SIZES.astype(np.int32),
    "boxes": boxes,
    "scores": scores,
    "classes": classes,
  }


def measure(parts):
  meter = detect.Detect().meter(Source())
  for part in parts:
    meter.add(part)
  meter.merge(lambda rows: rows)
  return meter.result()


def rows_of(ids):
  return {name: value[ids] for name, value in outputs().items()}


def test_perfect_detections_are_perfect():
  result = measure([outputs(perfect=True)])
  assert result["map"] == result["map_50"] == 1
  assert [*result][:12] == [*average_precision.NAMES]
  assert result["ap_cat"] == result["ap_traffic light"] == 1
  assert result["ap_dog"] == -1  # which no image has


def test_the_meter_is_exact():
  """The same numbers, bit for bit, in any order, batch and split."""
  whole = measure([outputs()])
  assert 0.05 < whole["map"] < 0.95
  for order in ([3, 1, 0, 2], [2, 3, 1, 0]):
    assert measure([rows_of([i]) for i in order]) == whole
    assert measure([rows_of(order)]) == whole
    assert measure([rows_of(order[:3]), rows_of(order[3:])]) == whole
  # Two processes: each adds its own rows, and gather joins them.
  meters = [detect.Detect().meter(Source()) for _ in range(2)]
  for meter, ids in zip(meters, ([2, 0], [1, 3]), strict=True):
    meter.add(rows_of(ids))
  kept = []
  meters[1].merge(lambda rows: kept.append(rows) or rows)
  meters[0].merge(lambda rows: np.concatenate([kept.pop(0), rows]))
  assert meters[0].result() == whole
  # And the detections of one image in another order.
  shuffled = rows_of([0, 1, 2, 3])
  order = np.random.default_rng(1).permutation(8)
  for name in ("boxes", "scores", "classes"):
    shuffled[name] = shuffled[name][:, order]
  assert measure([shuffled]) == whole


def test_crowds_are_neither_counted_nor_held_against_the_net():
  missed = outputs(perfect=True)
  crowd = Source().truth(2).crowd
  assert crowd.tolist() == [False, False, False, True]
  missed["scores"][2, 3] = 0
  assert measure([missed])["map"] == 1
  double = outputs(perfect=True)
  double["boxes"][2, 4], double["classes"][2, 4] = double["boxes"][2, 3], 1
  double["scores"][2, 4] = 1
  assert measure([double])["map"] == 1


def test_nothing_found():
  nothing = outputs()
  nothing["scores"][:] = 0
  assert measure([nothing])["map"] == 0


def test_without_pycocotools_there_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
  with pytest.raises(
    ValueError, match=r"pip install .mobilevit-jax\[detection"
  ):
    detect.make(Source(), 3)
  assert detect.make(None, 3) == detect.Detect(3)  # to predict takes none


def test_images_without_boxes_are_refused():
  class Labels:
    name = "digits/train"

  with pytest.raises(ValueError, match="digits/train has no boxes"):
    detect.make(Labels(), 3)


@pytest.mark.parametrize("name", ("loss_groups", "per_class", "most"))
def test_fields_are_checked(name):
  with pytest.raises(ValueError, match=rf"{name}=0 must be at least 1"):
    detect.make(None, 3, **{name: 0})
  with pytest.raises(ValueError, match=r"threshold=1\.5 must be at least 0"):
    detect.make(None, 3, threshold=1.5)


ANCHORS = jnp.asarray(ssdlite.anchors(ssdlite.map_sizes(64, 64)))


def batch():
  rng = np.random.default_rng(0)
  boxes = np.zeros((4, 3, 4), np.float32)
  boxes[:, :, :2] = rng.random((4, 3, 2)) * 0.5
  boxes[:, :, 2:] = boxes[:, :, :2] + 0.3
  valid = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)
  return {
    "images": jnp.asarray(rng.normal(size=(4, len(ANCHORS), 8)), jnp.float32),
    "boxes": boxes,
    "classes": rng.integers(0, 3, (4, 3)),
    "valid": valid,
  }


def net(x, train=False, rngs=None):
  """What would be images are the outputs."""
  del train, rngs
  return {"offsets": x[..., :4], "logits": x[..., 4:], "anchors": ANCHORS}


def loss_of(task, rows):
  key, step = jax.random.key(0), jnp.zeros((), int)
  return jax.jit(lambda x: task.loss(net, {}, x, key, {}, step))(rows)


def test_the_loss_is_divided_by_each_groups_positives():
  rows = batch()
  targets, labels = jax.vmap(ssd.match, (None, 0, 0, 0))(
    ANCHORS, rows["boxes"], rows["classes"], rows["valid"]
  )
  x = rows["images"]
  sums = np.array(ssd.losses(x[..., :4], x[..., 4:], targets, labels))
  count = sums[2]
  assert count[0] > count[1] > 0 and not count[2:].any()
  whole, metrics = loss_of(detect.Detect(), rows)
  np.testing.assert_allclose(whole, sums[:2].sum() / count.sum(), rtol=1e-5)
  np.testing.assert_allclose(
    metrics["box_loss"] + metrics["class_loss"], whole, rtol=1e-6
  )
  np.testing.assert_allclose(metrics["positives"], count.sum() / 4)
  grouped, _ = loss_of(detect.Detect(loss_groups=4), rows)
  each = sums[:2].sum(0) / np.maximum(count, 1)
  np.testing.assert_allclose(grouped, each.mean(), rtol=1e-5)
  with pytest.raises(ValueError, match="loss_groups=3 does not divide a batch"):
    loss_of(detect.Detect(loss_groups=3), rows)


def test_a_batch_without_objects_has_a_loss_of_zero():
  rows = batch() | {"valid": np.zeros((4, 3), np.float32)}
  key, step = jax.random.key(0), jnp.zeros((), int)

  def loss(images):
    own = rows | {"images": images}
    return detect.Detect().loss(net, {}, own, key, {}, step)[0]

  value, grad = jax.jit(jax.value_and_grad(loss))(rows["images"])
  assert value == 0 and not np.any(grad)


def test_it_says_and_draws_what_it_sees():
  task = detect.Detect()
  rows = {
    "boxes": np.array([[0.25, 0.25, 0.75, 0.75], [0, 0, 0.2, 0.2], [0] * 4]),
    "scores": np.array([0.9, 0.1, 0.0]),
    "classes": np.array([2, 0, 0]),
  }
  said = task.describe(rows, NAMES, 5)
  assert [(one["label"], one["score"]) for one in said] == [
    ("dog", 0.9),
    ("cat", 0.1),
  ]
  assert said[0]["box"] == [0.25, 0.25, 0.75, 0.75]
  assert len(task.describe(rows, NAMES, 1)) == 1
  image = np.zeros((80, 80, 3), np.uint8)
  picture = task.draw(image, rows, NAMES)
  assert picture.shape == image.shape and not image.any()
  assert picture[60, 40].any() and picture[40, 60].any()  # lower, right edge
  assert not picture[:15, :15].any()  # not sure enough
  truth = task.truth(
    {"boxes": rows["boxes"], "classes": rows["classes"], "valid": np.ones(3)},
    NAMES,
  )
  assert task.draw(image, truth, NAMES)[:18, :18].any()
