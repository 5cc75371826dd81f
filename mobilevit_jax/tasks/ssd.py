"""SSD's matching, coding, mining, loss and suppression, in fixed shapes.

Source: ml-cvnets v0.1 `cvnets/matcher_det/ssd_matcher.py`, `loss_fn/
detection_loss_fns/ssd_multibox_loss.py`, `cvnets/misc/box_utils.py`, after SSD
(arXiv 1512.02325). Letters: `b` images, `n` anchors, `m` boxes of an image,
padding included, `k` classes of objects. Boxes are x0, y0, x1, y1 as parts of
the image; label 0 is the background.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.models.heads import ssdlite

MATCH_IOU = 0.5  # from which an anchor holds an object
_FORCED = 2.0  # the IoU that a forced match counts as
_EPSILON = 1e-5  # of the matcher's IoU; it shows in boxes of a few pixels
_AT_ONCE = 64  # boxes in `matched`
NEGATIVES = 3  # background anchors that are learnt from, for each positive


class Detections(NamedTuple):
  """Of each image, the surest first; of those after the last the score is 0.

  Attributes:
    boxes: `[b, most, 4]`, inside of the image.
    scores: `[b, most]`.
    classes: int32 `[b, most]`, from 0, objects alone.
  """

  boxes: jax.Array
  scores: jax.Array
  classes: jax.Array


def corners(anchors: jax.Array) -> jax.Array:
  """`[n, 4]` of centre and sides as corners."""
  half = anchors[:, 2:] / 2
  return jnp.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], 1)


def iou(x: jax.Array, y: jax.Array, epsilon: float = 0.0) -> jax.Array:
  """Overlap over union of `[n, 4]` and `[m, 4]`: `[n, m]`."""
  # The overlap's corners: the larger of the lower, the smaller of the upper.
  low = jnp.maximum(x[:, None, :2], y[None, :, :2])
  high = jnp.minimum(x[:, None, 2:], y[None, :, 2:])
  # Boxes that don't meet have a negative side, which counts as 0.
  overlap = jnp.prod(jnp.maximum(high - low, 0), axis=-1)
  area_x, area_y = (jnp.prod(z[:, 2:] - z[:, :2], axis=-1) for z in (x, y))
  union = area_x[:, None] + area_y[None] - overlap + epsilon
  # Two boxes without area would give 0 / 0.
  return overlap / jnp.where(union > 0, union, 1)


def matched(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
  """Which boxes `[m, 4]` have an anchor without being forced on one, `[m]`."""
  # As many at a time, so that one program is compiled.
  count = math.ceil(len(boxes) / _AT_ONCE) * _AT_ONCE
  padded = np.zeros((count, 4), np.float32)
  padded[: len(boxes)] = boxes
  best = [
    np.asarray(_best_iou(anchors, padded[i : i + _AT_ONCE]))
    for i in range(0, count, _AT_ONCE)
  ]
  return np.concatenate([np.zeros(0), *best])[: len(boxes)] >= MATCH_IOU


@jax.jit
def _best_iou(anchors: jax.Array, boxes: jax.Array) -> jax.Array:
  return jnp.max(iou(corners(anchors), boxes, _EPSILON), axis=0)


def match(
  anchors: jax.Array, boxes: jax.Array, classes: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """What each anchor should say of one image.

  Args:
    anchors: `[n, 4]`, see `ssdlite.anchors`.
    boxes: `[m, 4]`, those that aren't valid of any value.
    classes: int `[m]`, from 0.
    valid: `[m]`, which of the boxes are there; there may be none.

  Returns:
    Offsets `[n, 4]`, finite; and labels int32 `[n]`, 0 for the background.
  """
  valid = valid > 0
  # Before any arithmetic: what comes of padding must not be infinite.
  # A unit box is a safe stand-in: its logarithms below are finite, and so are
  # the gradients, even through `where`.
  boxes = jnp.where(valid[:, None], boxes, jnp.array([0.0, 0.0, 1.0, 1.0]))
  overlaps = iou(corners(anchors), boxes, _EPSILON)
  overlaps = jnp.where(valid, overlaps, -1.0)
  # --- Each anchor takes the box that it overlaps most.
  best, box = jnp.max(overlaps, axis=1), jnp.argmax(overlaps, axis=1)
  # --- Then the boxes choose, which makes sure that none goes without: every
  # box has the anchor that fits it best; of two boxes with one anchor, the
  # later. Padding's index is out of range, and dropped.
  anchor = jnp.where(valid, jnp.argmax(overlaps, axis=0), len(anchors))
  forced = jnp.full(len(anchors), -1)
  forced = forced.at[anchor].max(jnp.arange(len(boxes)), mode="drop")
  box = jnp.where(forced >= 0, forced, box)
  best = jnp.where(forced >= 0, _FORCED, best)
  # --- Below 0.5 the anchor is background; there is no band between.
  labels = jnp.where(best < MATCH_IOU, 0, classes[box] + 1)
  return encode(boxes[box], anchors), labels.astype(jnp.int32)


def encode(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
  """Offsets `[n, 4]` of boxes from as many anchors; see `ssdlite.decode`."""
  center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
  # SSD, equation 2: shift = (g_c - a_c) / a_wh / 0.1, ratio = ln(g_wh / a_wh) /
  # 0.2.
  shift = (center - anchors[:, :2]) / anchors[:, 2:] / ssdlite.CENTER_VARIANCE
  ratio = jnp.log(size / anchors[:, 2:]) / ssdlite.SIZE_VARIANCE
  return jnp.concatenate([shift, ratio], axis=1)


def mine(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """The anchors of one image whose classes are learnt from, bool `[n]`.

  All positives, and for each of them the three others that look least like
  background. An image without positives has no negatives.

  Args:
    logits: `[n, 1 + k]`.
    labels: int `[n]`.
  """
  positive = labels > 0
  # -log p(background): the higher, the more the anchor looks like an object.
  surprise = -jax.nn.log_softmax(logits)[:, 0]
  # Positives go to the end of the order, as they are taken anyway.
  order = jnp.argsort(jnp.where(positive, -jnp.inf, surprise), descending=True)
  # Sorting twice turns an order into ranks, in fixed shapes.
  rank = jnp.argsort(order)
  return positive | (rank < NEGATIVES * jnp.sum(positive))


def losses(
  offsets: jax.Array,
  logits: jax.Array,
  targets: jax.Array,
  labels: jax.Array,
  label_smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The two sums of each image, before they are divided.

  Args:
    offsets: `[b, n, 4]`.
    logits: `[b, n, 1 + k]`.
    targets: offsets as `match` gives them, `[b, n, 4]`.
    labels: int `[b, n]`.
    label_smoothing: of the cross-entropy.

  Returns:
    Smooth L1 of the positives' offsets (beta 1), cross-entropy of the mined
    anchors, number of positives: `[b]` each.
  """
  positive = labels > 0
  # The background's targets mean nothing, and may be large: they are replaced
  # before the subtraction, so that no gradient comes of them.
  apart = jnp.abs(offsets - jnp.where(positive[..., None], targets, 0))
  # Smooth L1 with beta 1 (Fast R-CNN, equation 3).
  smooth = jnp.where(apart < 1, jnp.square(apart) / 2, apart - 0.5)
  box = jnp.sum(jnp.where(positive[..., None], smooth, 0), axis=(1, 2))
  # Which anchors are learnt from is a choice, not a function to differentiate.
  mined = jax.vmap(mine)(jax.lax.stop_gradient(logits), labels)
  log_p = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
  if label_smoothing:
    uniform = -jnp.mean(log_p, axis=-1)
    nll = (1 - label_smoothing) * nll + label_smoothing * uniform
  classes = jnp.sum(jnp.where(mined, nll, 0), axis=1)
  return box, classes, jnp.sum(positive, axis=1)


def suppress(
  boxes: jax.Array, valid: jax.Array, most_iou: float = 0.5
) -> jax.Array:
  """Greedy non-maximum suppression of boxes in order, bool `[n]`.

  A box goes if one before it stays and overlaps it by more than `most_iou`.
  Repeating that for all boxes at a time ends in the greedy answer: after each
  round at least one more box from the front is settled.

  Args:
    boxes: `[n, 4]`, the surest first.
    valid: bool `[n]`, which are there.
    most_iou: see above.
  """
  before = jnp.tri(len(boxes), k=-1, dtype=bool)  # [box, an earlier one]
  # A box stays if no earlier one that stays overlaps it; repeated until nothing
  # changes, which takes as many rounds as the longest chain of overlaps.
  over = (iou(boxes, boxes) > most_iou) & before

  def settle(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    keep, _ = state
    return valid & ~jnp.any(over & keep, axis=1), keep

  start = valid, jnp.zeros_like(valid)
  return jax.lax.while_loop(
    lambda state: jnp.any(state[0] != state[1]), settle, start
  )[0]


def detect(
  boxes: jax.Array,
  scores: jax.Array,
  *,
  threshold: float = 0.01,
  per_class: int = 400,
  most_iou: float = 0.5,
  most: int = 200,
) -> Detections:
  """The boxes of each image that stay, class by class.

  Args:
    boxes: `[b, n, 4]`, decoded.
    scores: `[b, n, k]`, of objects.
    threshold: what a score must be above.
    per_class: the surest that compete, of each class.
    most_iou: see `suppress`.
    most: boxes kept of an image.
  """
  per_class = min(per_class, boxes.shape[1])

  def one_class(
    image: jax.Array, score: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    score, index = jax.lax.top_k(score, per_class)
    keep = suppress(image[index], score > threshold, most_iou)
    return jnp.where(keep, score, 0), index

  def one(image: tuple[jax.Array, jax.Array]) -> Detections:
    boxes, scores = image
    # Classes compete separately: a box may stay for several of them.
    kept, index = jax.vmap(one_class, (None, 0))(boxes, scores.T)
    score, place = jax.lax.top_k(kept.reshape(-1), min(most, kept.size))
    found = jnp.clip(boxes[index.reshape(-1)[place]], 0, 1)
    # The flat index of class and place gives the class back.
    return Detections(found, score, (place // per_class).astype(jnp.int32))

  # Image by image: the overlaps of eighty classes are 50 MB of each.
  return jax.lax.map(one, (boxes, scores))
