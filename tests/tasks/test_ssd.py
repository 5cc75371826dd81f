"""Matching, mining, loss and suppression against plain numpy and cvnets."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax.models.heads import ssdlite
from mobilevit_jax.tasks import ssd

FIXTURES = pathlib.Path(__file__).resolve().parents[3] / "shared/spec/fixtures"
MOST = 8  # boxes of an image, padding included
match = jax.jit(jax.vmap(ssd.match, (None, 0, 0, 0)))
mine = jax.jit(jax.vmap(ssd.mine))
losses = jax.jit(ssd.losses, static_argnums=4)


def pad(truths):
  """Boxes, classes and which are there, of images with few or no boxes."""
  boxes = np.full((len(truths), MOST, 4), np.nan, np.float32)  # never read
  classes = np.full((len(truths), MOST), -1, np.int32)
  valid = np.zeros((len(truths), MOST), np.float32)
  for row, (box, label) in enumerate(truths):
    boxes[row, : len(box)], classes[row, : len(box)] = box, label
    valid[row, : len(box)] = 1
  return boxes, classes, valid


def random_truths(count, seed=0):
  rng = np.random.default_rng(seed)
  truths = []
  for index in range(count):
    low = rng.random((index % MOST, 2)) * 0.8
    high = low + rng.uniform(0.01, 1, low.shape) * (1 - low)
    truths.append(
      (np.concatenate([low, high], 1).astype(np.float32), index % 3)
    )
  return truths


def plain_match(anchors, boxes, label):
  """Loops over anchors and boxes, in double precision."""
  low, high = (
    anchors[:, :2] - anchors[:, 2:] / 2,
    anchors[:, :2] + (anchors[:, 2:] / 2),
  )
  table = np.zeros((len(anchors), len(boxes)))
  for j, (x0, y0, x1, y1) in enumerate(boxes):
    w = np.minimum(high[:, 0], x1) - np.maximum(low[:, 0], x0)
    h = np.minimum(high[:, 1], y1) - np.maximum(low[:, 1], y0)
    overlap = np.where((w > 0) & (h > 0), w * h, 0)
    union = anchors[:, 2] * anchors[:, 3] + (x1 - x0) * (y1 - y0) - overlap
    table[:, j] = overlap / (union + 1e-5)
  labels, offsets = np.zeros(len(anchors), int), {}
  owner = {int(table[:, j].argmax()): j for j in range(len(boxes))}
  for i in range(len(anchors)):
    j = owner.get(i, table[i].argmax() if len(boxes) else None)
    if i in owner or (len(boxes) and table[i, j] >= 0.5):
      labels[i] = label + 1
      x0, y0, x1, y1 = boxes[j].astype(float)
      cx, cy, w, h = anchors[i].astype(float)
      offsets[i] = (
        ((x0 + x1) / 2 - cx) / w / 0.1,
        ((y0 + y1) / 2 - cy) / h / 0.1,
        np.log((x1 - x0) / w) / 0.2,
        np.log((y1 - y0) / h) / 0.2,
      )
  return labels, offsets


def test_matching_against_loops():
  anchors = ssdlite.anchors(ssdlite.map_sizes(96, 128))
  truths = random_truths(12)
  offsets, labels = match(anchors, *pad(truths))
  assert np.isfinite(offsets).all()
  for row, (boxes, label) in enumerate(truths):
    expected, own = plain_match(anchors, boxes, label)
    np.testing.assert_array_equal(labels[row], expected)
    for index, values in own.items():
      np.testing.assert_allclose(offsets[row, index], values, atol=2e-4)


def test_of_two_boxes_with_one_best_anchor_the_later_wins():
  anchors = np.array([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]], np.float32)
  box = np.array([0.4, 0.4, 0.6, 0.6])
  boxes = np.stack([box, box + 0.01, box + 0.02]).astype(np.float32)
  _, labels = ssd.match(anchors, boxes, np.array([4, 5, 6]), np.ones(3))
  assert labels.tolist() == [7, 0]
  _, labels = ssd.match(
    anchors, boxes, np.array([4, 5, 6]), np.array([1, 1, 0])
  )
  assert labels.tolist() == [6, 0]


def test_a_tiny_box_counts_its_epsilon():
  """Its IoU with itself is 0.94: cvnets adds 1e-5 to the union."""
  box = jnp.array([[0.1, 0.1, 0.1125, 0.1125]])
  assert float(ssd.iou(box, box, 1e-5)[0, 0]) == pytest.approx(0.940, abs=5e-4)
  assert float(ssd.iou(box, box)[0, 0]) == pytest.approx(1)


def test_coding_goes_round():
  anchors = ssdlite.anchors(ssdlite.map_sizes(64, 64))
  rng = np.random.default_rng(0)
  low = rng.random((len(anchors), 2)) * 0.8
  boxes = np.concatenate([low, low + rng.uniform(0.05, 0.2, low.shape)], 1)
  back = ssdlite.decode(ssd.encode(boxes.astype(np.float32), anchors), anchors)
  np.testing.assert_allclose(back, boxes, atol=1e-5)


def test_mining_and_loss_against_loops():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(4, 50, 5)).astype(np.float32)
  offsets, targets = rng.normal(size=(2, 4, 50, 4)).astype(np.float32) * 2
  labels = np.zeros((4, 50), np.int32)
  labels[1, :3], labels[2, 5], labels[3, :30] = 2, 4, 1
  mined = mine(logits, labels)
  found = losses(offsets, logits, targets, labels, 0.1)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  for row in range(4):
    positives = np.flatnonzero(labels[row])
    negatives = np.flatnonzero(labels[row] == 0)
    order = np.argsort(log_p[row, negatives, 0])
    hard = negatives[order][: 3 * len(positives)]
    assert set(np.flatnonzero(mined[row])) == {*positives, *hard}
    box = classes = 0.0
    for i in positives:
      for d in np.abs(offsets[row, i] - targets[row, i]):
        box += d * d / 2 if d < 1 else d - 0.5
    for i in [*positives, *hard]:
      own = log_p[row, i]
      classes -= 0.9 * own[labels[row, i]] + 0.1 * own.mean()
    np.testing.assert_allclose(
      [f[row] for f in found], (box, classes, len(positives)), rtol=1e-5
    )


def test_padding_and_images_without_boxes_have_finite_gradients():
  anchors = ssdlite.anchors(ssdlite.map_sizes(64, 64))
  empty = np.zeros((0, 4), np.float32), 0
  truths = [empty, random_truths(4)[3], empty]

  def total(offsets, logits, padded):
    targets, labels = match(anchors, *padded)
    box, classes, count = ssd.losses(offsets, logits, targets, labels)
    return (box.sum() + classes.sum()) / jnp.maximum(count.sum(), 1)

  shape = (3, len(anchors))
  offsets, logits = jnp.ones((*shape, 4)), jnp.zeros((*shape, 4))
  for padded in (pad(truths), pad([empty] * 3)):
    loss, grads = jax.value_and_grad(total, (0, 1))(offsets, logits, padded)
    assert np.isfinite(loss)
    for grad in grads:
      assert np.isfinite(grad).all()
      assert not np.any(grad[0]) and not np.any(grad[2])
      assert np.any(grad[1]) == (padded[2].sum() > 0)


def plain_nms(boxes, scores, most_iou):
  kept = []
  for i in np.argsort(-scores, kind="stable"):
    if all(plain_iou(boxes[i], boxes[j]) <= most_iou for j in kept):
      kept.append(i)
  return kept


def plain_iou(a, b):
  w = min(a[2], b[2]) - max(a[0], b[0])
  h = min(a[3], b[3]) - max(a[1], b[1])
  overlap = max(w, 0) * max(h, 0)
  areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
  return overlap / (sum(areas) - overlap)


def test_detections_against_loops():
  rng = np.random.default_rng(2)
  low = rng.random((2, 120, 2)).astype(np.float32) * 0.5
  boxes = np.concatenate([low, low + rng.uniform(0.1, 0.6, low.shape)], -1)
  boxes, scores = boxes.astype(np.float32), rng.random((2, 120, 3))
  scores = scores.astype(np.float32)
  found = jax.jit(ssd.detect, static_argnames=("per_class", "most"))(
    boxes, scores, threshold=0.3, per_class=60, most=40
  )
  for row in range(2):
    expected = []
    for k in range(3):
      score = scores[row, :, k]
      best = np.argsort(-score)[:60]
      best = best[score[best] > 0.3]
      for i in plain_nms(boxes[row, best], score[best], 0.5):
        expected.append((score[best[i]], k, *boxes[row, best[i]].clip(0, 1)))
    expected = np.array(sorted(expected, reverse=True))[:40]
    count = int((found.scores[row] > 0).sum())
    assert 0 < count == len(expected)
    np.testing.assert_allclose(found.scores[row, :count], expected[:, 0])
    np.testing.assert_array_equal(found.classes[row, :count], expected[:, 1])
    np.testing.assert_allclose(found.boxes[row, :count], expected[:, 2:])


def test_a_chain_of_boxes_is_settled_in_order():
  """Each overlaps the next alone: every other one stays."""
  x = np.arange(9, dtype=np.float32)[:, None] * 0.1
  boxes = np.concatenate([x, x * 0, x + 0.25, x * 0 + 1], 1)
  keep = ssd.suppress(boxes, np.ones(9, bool), 0.4)
  assert keep.tolist() == [True, False] * 4 + [True]


@pytest.fixture(scope="module")
def official():
  """Numbers of one run of ml-cvnets v0.1; see the README beside them."""
  file = FIXTURES / "ssd_reference.npz"
  if not file.exists():
    pytest.skip("no numbers of ml-cvnets here")
  with np.load(file) as numbers:
    return dict(numbers)


def test_ml_cvnets_numbers(official):
  """Labels, masks and anchors exactly, sums to 1e-5 relative."""
  anchors = ssdlite.anchors(ssdlite.map_sizes(320, 320))
  np.testing.assert_array_equal(anchors, official["anchors_cxcywh"])
  truths = [
    (official[f"gt_boxes_{i}"], official[f"gt_labels_{i}"] - 1)
    for i in range(3)
  ]
  targets, labels = match(anchors, *pad(truths))
  np.testing.assert_array_equal(labels, official["target_labels"])
  np.testing.assert_allclose(
    targets, official["target_locations"], rtol=1e-5, atol=1e-5
  )
  rng = np.random.RandomState(0)
  logits = rng.randn(3, 3232, 81).astype(np.float32) * np.float32(1.5)
  offsets = rng.randn(3, 3232, 4).astype(np.float32) * np.float32(0.5)
  np.testing.assert_array_equal(mine(logits, labels), official["mined_mask"])
  for smoothing, name in ((0.0, "cls_sum"), (0.1, "cls_sum_smoothing_0_1")):
    box, classes, count = losses(offsets, logits, targets, labels, smoothing)
    np.testing.assert_allclose(box.sum(), official["reg_sum"], rtol=1e-5)
    np.testing.assert_allclose(classes.sum(), official[name], rtol=1e-5)
    assert count.sum() == official["num_pos"]
  boxes = ssdlite.decode(offsets, anchors)
  np.testing.assert_allclose(
    boxes[:, ::101], official["decoded_xyxy_sample"], atol=1e-6
  )
  found = jax.jit(ssd.detect)(boxes, jax.nn.softmax(3 * logits)[..., 1:])
  np.testing.assert_array_equal(found.classes + 1, official["det_labels"])
  np.testing.assert_allclose(found.scores, official["det_scores"], atol=1e-6)
  np.testing.assert_allclose(
    found.boxes, official["det_boxes"].clip(0, 1), atol=1e-5
  )
