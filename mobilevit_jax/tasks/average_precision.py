"""COCO's average precision: the one place that knows pycocotools.

Its numbers are what papers mean by mAP, so there is no second implementation.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import importlib
import io
from typing import Any

import numpy as np

from mobilevit_jax.tasks import task

# COCO's twelve numbers, in its order: average precision and recall.
NAMES = (
  *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
  *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


def library() -> Any:
  """pycocotools; a ValueError says how to get it."""
  try:
    importlib.import_module("pycocotools.coco")
    return importlib.import_module("pycocotools.cocoeval")
  except ImportError as error:
    raise ValueError(
      "detection is judged by pycocotools "
      "(pip install 'mobilevit-jax[detection]')"
    ) from error


class AveragePrecision:
  """The meter of detections; it keeps what was found, and fetches the truth.

  A class without truth has an average precision of -1, as in COCO's own tools.
  """

  def __init__(self, source: Any, *, by_class: bool = True):
    """`source` is a `data.boxes.Boxed`."""
    self._source, self._by_class = source, by_class
    self._ids: list[np.ndarray] = []
    self._found: list[np.ndarray] = []  # image, x0, y0, x1, y1, score, class

  def add(self, rows: task.Rows) -> None:
    """Takes `boxes` as parts of the image, `scores`, 0 for none, `classes`."""
    # A score of 0 marks a free place: every image brings as many rows.
    image, place = np.nonzero(rows["scores"] > 0)
    sizes = rows["sizes"][image].astype(np.float64)
    # To pixels of the original image, x by the width and y by the height, in
    # double precision: COCO's files hold pixels.
    boxes = rows["boxes"][image, place] * sizes[:, [1, 0, 1, 0]]
    self._ids.append(rows["ids"].astype(np.int64))
    self._found.append(
      np.column_stack(
        [
          rows["ids"][image],
          boxes,
          rows["scores"][image, place],
          rows["classes"][image, place],
        ]
      ).astype(np.float64)
    )

  def merge(self, gather: Callable[[np.ndarray], np.ndarray]) -> None:
    """Joins the images of all processes."""
    # A process without images still takes part, with an empty array of the
    # right width.
    self._ids = [gather(np.concatenate([np.zeros(0, np.int64), *self._ids]))]
    self._found = [gather(np.concatenate([np.zeros((0, 7)), *self._found]))]

  @property
  def ids(self) -> list[int]:
    """Numbers of the images that were added, rising."""
    return np.unique(np.concatenate(self._ids)).tolist()

  @property
  def found(self) -> np.ndarray:
    """What was found, `[n, 7]`: image, x0, y0, x1, y1, score, class."""
    return np.concatenate(self._found)

  def result(self) -> dict[str, float]:
    """COCO's twelve numbers, and `ap_CLASS` of each class."""
    evaluation = self.evaluate(self.ids, self.found)
    numbers = dict(zip(NAMES, map(float, evaluation.stats), strict=True))
    if self._by_class:
      # Thresholds, recalls, classes, areas ("all"), most detections (100).
      precision = evaluation.eval["precision"][:, :, :, 0, -1]
      for index, name in enumerate(self._source.class_names):
        values = precision[:, :, index]
        # -1 marks a threshold and recall for which the class has no truth.
        known = values[values > -1]
        numbers[f"ap_{name}"] = float(known.mean()) if known.size else -1.0
    return numbers

  def evaluate(self, ids: Sequence[int], found: np.ndarray) -> Any:
    """Pycocotools' evaluation of rows of image, box, score and class."""
    # Of equal scores the first counts: an order of their own makes the result
    # independent of batches and processes.
    found = found[np.lexsort([*found.T[:5], found[:, 6], -found[:, 5]])]
    truth = []
    for index in ids:
      own = self._source.truth(index)
      truth += [
        {
          **_annotation(index, box, int(label)),
          "iscrowd": int(crowd),
          "area": float(area),
        }
        for box, label, crowd, area in zip(
          own.boxes, own.classes, own.crowd, own.area, strict=True
        )
        # A class that the set doesn't name can't be judged.
        if label >= 0
      ]
    guesses = [
      # Detections carry their area too, which pycocotools asks for when it
      # divides them into small, medium and large.
      {**_annotation(int(row[0]), row[1:5], int(row[6])), "score": row[5]}
      for row in found
    ]
    # It prints its progress and a table.
    with contextlib.redirect_stdout(io.StringIO()):
      sets = [self._coco(ids, rows) for rows in (truth, guesses)]
      evaluation = library().COCOeval(*sets, "bbox")
      evaluation.evaluate()
      evaluation.accumulate()
      evaluation.summarize()
    return evaluation

  def _coco(self, ids: Sequence[int], rows: list[dict[str, Any]]) -> Any:
    coco = importlib.import_module("pycocotools.coco").COCO()
    names = self._source.class_names
    coco.dataset = {
      "images": [{"id": index} for index in ids],
      "categories": [
        {"id": place, "name": name} for place, name in enumerate(names)
      ],
      # Ids from 1: it takes a match with 0 for none.
      "annotations": [{**row, "id": i} for i, row in enumerate(rows, 1)],
    }
    coco.createIndex()
    return coco


def _annotation(
  image: int, box: Sequence[float] | np.ndarray, label: int
) -> Mapping[str, Any]:
  x0, y0, x1, y1 = map(float, box)
  return {
    "image_id": image,
    "category_id": label,
    "bbox": [x0, y0, x1 - x0, y1 - y0],
    "area": (x1 - x0) * (y1 - y0),
    "iscrowd": 0,
  }
