"""Which of a detector's boxes stay: what runs beside a file, in NumPy alone.

An exported detector answers with a box and a score of each class for every
anchor. `suppress` makes detections of one image's, as the task's own
evaluation does (`tasks.ssd.detect`). It needs NumPy and nothing else, so that
this file can be copied to where the exported one runs.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Suppression:
  """How overlapping boxes are suppressed: a file's metadata has the same names.

  Attributes:
    threshold: what the score of a detection must be above.
    per_class: the surest boxes of each class that compete.
    nms_iou: overlap over union from which the less sure of two boxes goes.
    most: detections of an image.
  """

  threshold: float = 0.01
  per_class: int = 400
  nms_iou: float = 0.5
  most: int = 200


def suppress(
  boxes: np.ndarray,
  scores: np.ndarray,
  how: Suppression | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The detections of one image, the surest first.

  Args:
    boxes: `[n, 4]` of x0, y0, x1, y1, as parts of the image.
    scores: `[n, k]`, of each class of objects.
    how: by default as the task's evaluation does.

  Returns:
    Boxes `[m, 4]`, inside of the image; scores `[m]`; classes int32 `[m]`.
  """
  how, found = how or Suppression(), []
  for label, score in enumerate(scores.T):
    # Of equal scores the first anchor comes first.
    order = np.argsort(-score, kind="stable")[: how.per_class]
    order = order[score[order] > how.threshold]
    # Greedy: the surest stays, and takes away what overlaps it.
    while len(order):
      best, order = order[0], order[1:]
      found.append((score[best], label, best))
      order = order[_iou(boxes[best], boxes[order]) <= how.nms_iou]
  # Of equal scores the lower class comes first.
  # Python's sort is stable, and classes were taken in order.
  found.sort(key=lambda one: -one[0])
  found = found[: how.most]
  score = np.array([one[0] for one in found], np.float32)
  classes = np.array([one[1] for one in found], np.int32)
  places = np.array([one[2] for one in found], np.int64)
  # Clipped last: overlaps count with what lies outside of the image, as in
  # training.
  return boxes[places].clip(0, 1), score, classes


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Overlap over union of one box with each of the others, `[n]`."""
  low = np.maximum(box[:2], others[:, :2])
  high = np.minimum(box[2:], others[:, 2:])
  # Sides below 0: the boxes lie apart.
  overlap = np.prod(np.maximum(high - low, 0), axis=1)
  areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
  union = np.prod(box[2:] - box[:2]) + areas - overlap
  return overlap / np.where(union > 0, union, 1)
