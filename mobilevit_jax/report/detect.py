"""What the page says of a detector's boxes; the numbers are pycocotools'.

Letters: `k` classes, `r` recalls, `t` overlaps.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.report import charts
from mobilevit_jax.report import context
from mobilevit_jax.report import pictures
from mobilevit_jax.report import statistics
from mobilevit_jax.tasks import average_precision
from mobilevit_jax.tasks import detect

_SIDE = 384  # pixels, of the longer side of a picture
_CURVES = 6  # classes whose lines can be told apart
_MEANINGS = {
  "map": "average precision, mean over overlaps of 0.50 to 0.95",
  "map_50": "average precision at an overlap of 0.50",
  "map_75": "average precision at an overlap of 0.75",
  "map_small": "of objects of less than 32 x 32 pixels",
  "map_medium": "of objects in between",
  "map_large": "of objects of more than 96 x 96 pixels",
  "ar_1": "average recall with 1 box of each class in an image",
  "ar_10": "with 10 boxes",
  "ar_100": "with 100 boxes",
  "ar_small": "of small objects",
  "ar_medium": "of medium objects",
  "ar_large": "of large objects",
}


class Predictions:
  """What a run's net says of each image; broken ones are left out.

  "Shown" boxes have a score of at least `detect.DRAWN`, as prediction draws
  them. One is right if it overlaps an object of its class by at least half, by
  COCO's matching.

  Attributes:
    source: the images and their boxes.
    names: of the classes.
    numbers: COCO's twelve, by name; -1 where there is no object.
    precision: float64 `[t, r, k]`; -1 for a class without objects.
    objects: how many objects of each class there are, int `[k]`.
    images: images with objects of each class, int `[k]`.
    tallies: of each image by its number: objects `found` and `missed` among
      the shown boxes, and shown boxes that are `wrong`.
    sure: score of each shown box, `[n]`.
    right: which of them are right, bool `[n]`.
  """

  template: ClassVar[str] = "detect"

  def __init__(self, run: context.Run, most_mistakes: int = 24):
    """Evaluates as the run did: its split, size and batch.

    Args:
      run: what to evaluate.
      most_mistakes: pictures to show.
    """
    source: Any = run.setup.source  # which has boxes
    self.source, self.names, self._most = source, run.class_names, most_mistakes
    self._task = run.setup.task
    meter = average_precision.AveragePrecision(source)
    # --- One pass over the images; everything below is read off it.
    for rows in run.rows():
      meter.add(rows)
    if not meter.ids:
      raise ValueError(f"all {len(source)} images of {source.name} are broken")
    self._found = meter.found
    # --- COCO's own evaluation, by pycocotools: twelve numbers, and the matches
    # that they come from.
    evaluation = meter.evaluate(meter.ids, self._found)
    numbers = zip(average_precision.NAMES, evaluation.stats, strict=True)
    self.numbers = {name: float(value) for name, value in numbers}
    # Overlaps, recalls, classes, areas (all), most detections (100).
    self.precision = evaluation.eval["precision"][:, :, :, 0, -1]
    # COCO's ranges of area; the first is "all".
    self._ranges = evaluation.params.areaRng[1:]
    self._recalls = evaluation.params.recThrs
    self._count(meter.ids)
    self._tally(meter.ids, evaluation)

  def _count(self, ids: Sequence[int]) -> None:
    k = len(self.source.class_names)
    self.objects, self.images = np.zeros((2, k), int)
    areas = []
    for index in ids:
      truth = self.source.truth(index)
      # Crowds, and classes that the set doesn't name, are not counted as
      # objects.
      counted = ~truth.crowd & (truth.classes >= 0)
      present = np.bincount(truth.classes[counted], minlength=k)
      self.objects += present
      self.images += present > 0
      areas.append(truth.area[counted])
    # An object on the border of two ranges counts in both, as in COCO.
    area = np.concatenate(areas)
    self._by_size = [
      int(((low <= area) & (area <= high)).sum()) for low, high in self._ranges
    ]

  def _tally(self, ids: Sequence[int], evaluation: Any) -> None:
    k = len(self.source.class_names)
    self.tallies = {i: {"found": 0, "missed": 0, "wrong": 0} for i in ids}
    self._hits, self._shown = np.zeros((2, k), int)
    sure, right = [np.zeros(0)], [np.zeros(0, bool)]
    everything = evaluation.params.areaRng[0]
    # One entry for each image, class and range of area: "all" is taken.
    for one in evaluation.evalImgs:
      if one is None or one["aRng"] != everything:
        continue
      scores = np.array(one["dtScores"], np.float64)
      # At the first overlap, 0.5. Boxes on crowds count neither way.
      counts = (scores >= detect.DRAWN) & ~np.array(one["dtIgnore"][0], bool)
      hits = np.array(one["dtMatches"][0])[counts] > 0
      sure.append(scores[counts])
      right.append(hits)
      label, tally = one["category_id"], self.tallies[one["image_id"]]
      # Objects that COCO ignores here, such as crowds, are neither found nor
      # missed.
      there = int(np.count_nonzero(np.array(one["gtIgnore"]) == 0))
      tally["found"] += int(hits.sum())
      tally["missed"] += there - int(hits.sum())
      tally["wrong"] += int((~hits).sum())
      self._hits[label] += hits.sum()
      self._shown[label] += len(hits)
    self.sure, self.right = np.concatenate(sure), np.concatenate(right)

  def lead(self) -> tuple[str, str]:
    """The page's first sentence, but for its end: the number, and the rest."""
    total, present = len(self.tallies), int(np.count_nonzero(self.objects))
    # An image that can't be decoded has no tally.
    broken = len(self.source) - total
    left_out = f" ({broken} broken ones were left out)" if broken else ""
    return _share(self.numbers["map"]), (
      f"mean average precision (COCO's mAP) over {present} "
      f"class{'es' * (present != 1)} in {total:,} images{left_out}"
    )

  def cards(self) -> list[tuple[str, str, str]]:
    """Numbers to show: what it is, the number, a remark."""
    hits, shown = int(self.right.sum()), len(self.right)
    total = int(self.objects.sum())
    least = f"of a score of at least {detect.DRAWN}"
    return [
      ("mAP", _share(self.numbers["map"]), "overlaps of 0.50 to 0.95"),
      ("mAP at 0.50", _share(self.numbers["map_50"]), "a loose fit"),
      ("mAP at 0.75", _share(self.numbers["map_75"]), "a tight fit"),
      ("objects found", _share(_part(hits, total)), f"by boxes {least}"),
      ("boxes right", _share(_part(hits, shown)), least),
      ("evaluated", f"{len(self.tallies):,}", f"images, {total:,} objects"),
    ]

  def sections(self) -> dict[str, Any]:
    """Parts of the page by their titles, in order."""
    return {
      "Precision and recall": self._recall(),
      "Classes": self._classes(),
      "Sizes": self._sizes(),
      "Worst images": self._images(),
      "Calibration": self._calibration(),
    }

  def lines(self) -> Iterator[Sequence[object]]:
    """Of `predictions.csv`: its head, and a line for each image."""
    yield ["name", "objects", "found", "missed", "wrong"]
    for index, tally in self.tallies.items():
      yield [
        examples.located(self.source, index),
        tally["found"] + tally["missed"],
        *tally.values(),
      ]

  def _recall(self) -> dict[str, Any]:
    """Curves of precision over recall: the means, and of the classes."""
    there = np.flatnonzero(self.objects)
    # Means over the classes with objects: `[t, r]`. Overlaps rise by 0.05 from
    # 0.5, so that t = 0 is 0.50 and t = 5 is 0.75.
    means = self.precision[:, :, there].mean(axis=2) if there.size else None
    drawn = [
      charts.share_chart(
        "mean over classes, by overlap",
        [
          charts.Series(name, style, self._line(values))
          for name, style, values in (
            ("0.50", "c0", means[0]),
            ("0.75", "c1", means[5]),
            ("0.50 to 0.95", "c5", means.mean(axis=0)),
          )
        ]
        if means is not None
        else [],
        x_name="recall",
      ),
      charts.share_chart(
        "classes, at an overlap of 0.50",
        [
          charts.Series(
            self.names[label],
            f"c{place}",
            self._line(self.precision[0, :, label]),
          )
          # A chart with more lines can't be read.
          for place, label in enumerate(self._commonest())
        ],
        x_name="recall",
      ),
    ]
    return {
      "charts": [chart for chart in drawn if chart],
      "left_out": max(there.size - _CURVES, 0),
      "numbers": [
        (name, _share(value), _MEANINGS[name])
        for name, value in self.numbers.items()
      ],
    }

  def _commonest(self) -> list[int]:
    """The classes with the most objects, in their own order."""
    # Stable, so that equal counts keep the order of the names.
    order = np.argsort(-self.objects, kind="stable")[:_CURVES]
    return sorted(label for label in order.tolist() if self.objects[label])

  def _line(self, values: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(self._recalls.tolist(), values.tolist(), strict=True))

  def _classes(self) -> dict[str, Any]:
    """Average precision of every class with objects, and what is shown."""
    rows = []
    for label in np.flatnonzero(self.objects + self._shown).tolist():
      # AP of each overlap: the mean of precision over the 101 recalls.
      precision = self.precision[:, :, label].mean(axis=1)
      hits = int(self._hits[label])
      rows.append(
        [
          self.names[label],
          int(self.images[label]),
          int(self.objects[label]),
          float(precision.mean()),
          float(precision[0]),
          float(precision[5]),
          _part(hits, int(self.objects[label])),
          _part(hits, int(self._shown[label])),
        ]
      )
    return {
      "rows": rows,
      "absent": len(self.source.class_names) - len(rows),
      "drawn": detect.DRAWN,
    }

  def _sizes(self) -> dict[str, Any]:
    """Average precision and recall by the area of objects, as COCO does."""
    areas = ("less than 32 x 32 pixels", "between", "more than 96 x 96 pixels")
    names = ("small", "medium", "large")
    return {
      "rows": [
        [
          name,
          area,
          count,
          self.numbers[f"map_{name}"],
          self.numbers[f"ar_{name}"],
        ]
        for name, area, count in zip(names, areas, self._by_size, strict=True)
      ]
    }

  def _images(self) -> dict[str, Any]:
    """The images with the most objects missed and boxes wrong."""
    order = sorted(
      self.tallies,
      # Missed objects and wrong boxes count alike.
      key=lambda index: (
        -sum(self.tallies[index][kind] for kind in ("missed", "wrong"))
      ),
    )
    flawed = [
      index
      for index in order
      if self.tallies[index]["missed"] + self.tallies[index]["wrong"]
    ]
    return {
      "flawed": len(flawed),
      "total": len(order),
      "drawn": detect.DRAWN,
      "worst": [self._image(index) for index in flawed[: self._most]],
    }

  def _image(self, index: int) -> dict[str, Any]:
    """An image with its truth, and with what was found in it."""
    image = pictures.pixels(self.source, index)
    # Boxes of files are in pixels, those of drawings parts of the image.
    sides = np.array([image.shape[1], image.shape[0]] * 2, np.float64)
    truth = self.source.truth(index)
    known = truth.classes >= 0
    # Rows of `found`: image, box, score, class.
    mine = self._found[self._found[:, 0] == index]
    # Names of boxes would be larger than a small image.
    small = pictures.scale(image, _SIDE)
    drawn = [
      self._task.draw(
        small,
        {"boxes": boxes / sides, "scores": scores, "classes": classes},
        self.names,
      )
      for boxes, scores, classes in (
        (truth.boxes[known], np.ones(known.sum()), truth.classes[known]),
        (mine[:, 1:5], mine[:, 5], mine[:, 6].astype(int)),
      )
    ]
    names = ("truth", "found")
    return {
      "pictures": [*zip(names, map(pictures.encode, drawn), strict=True)],
      "place": pictures.place(self.source, index),
      **self.tallies[index],
    }

  def _calibration(self) -> dict[str, Any]:
    """Whether boxes of a score of 0.8 are right in 80 % of the cases."""
    # A detector's calibration: of the boxes of a score, the share that is right
    # (precision), not the share of objects that is found.
    found = statistics.binned(self.sure, self.right)
    there = len(self.sure) > 0
    sure, right = (
      float(values.mean()) if there else 0.0
      for values in (self.sure, self.right)
    )
    verdict = "too sure" if sure > right else "not sure enough"
    if abs(sure - right) < 0.005:
      verdict = "about as sure as it should be"
    return {
      "boxes": len(self.sure),
      "drawn": detect.DRAWN,
      "sure": sure,
      "right": right,
      "verdict": verdict,
      "ece": found.ece,
      "chart": charts.reliability(found, "boxes"),
      "unit": "boxes",
      "about": (
        "The error (ECE) is the mean over these boxes of |share that is right "
        f"- score| of their bin, in {len(found.count)} bins of equal width. "
        "Only boxes are counted: it says nothing of objects without one."
      ),
    }


def _part(count: int, total: int) -> float | None:
  return count / total if total else None


def _share(value: float | None) -> str:
  return "-" if value is None or value < 0 else f"{value:.1%}"
