"""What the page says of a segmenter's masks, at the images' original sizes.

Letters: `n` images, `k` classes.
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any, ClassVar

import cv2
import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.report import confusion
from mobilevit_jax.report import context
from mobilevit_jax.report import pictures
from mobilevit_jax.tasks import segment

_SIDE = 288  # pixels, of the longer side of a picture
_WRONG = np.array([255, 120, 0], np.uint8)


@dataclasses.dataclass(frozen=True)
class _Seen:
  """An image: its number, and the classes found in it, uint8 `[h, w]`."""

  index: int
  classes: np.ndarray
  miou: float
  accuracy: float


class Predictions:
  """What a run's net says of each pixel; broken images are left out.

  Attributes:
    source: the images and their masks.
    names: of the net's classes.
    counts: of all pixels, int64 `[k, k]`: rows are true classes, columns
      predicted ones.
    ids: numbers of the images in the source, in order.
    ious: of the classes in each image, `[n, k]`; NaN for one of nothing.
    accuracy: share of right pixels of each image, `[n]`; NaN for one whose
      pixels are all ignored.
    support: images of each class, int `[k]`.
  """

  template: ClassVar[str] = "segment"

  def __init__(self, run: context.Run, most_mistakes: int = 24):
    """Evaluates as the run did: its split, protocol, size and batch.

    Args:
      run: what to evaluate.
      most_mistakes: pictures to show.
    """
    source: Any = run.setup.source  # which has masks
    self.source, self.names = source, run.class_names
    k = len(self.names)
    self.counts, self.ids = np.zeros((k, k), np.int64), []
    self.support = np.zeros(k, np.int64)
    ious, accuracy = [], []
    self._worst: list[_Seen] = []
    for rows in run.rows():
      parts = {"classes", "logits", "aligned"} & rows.keys()
      for place, index in enumerate(rows["ids"].tolist()):
        truth = source.mask(index)
        outputs = {name: rows[name][place] for name in parts}
        found = segment.classes_of(outputs, *truth.shape)
        counts = segment.confusion(truth, found, k)
        self.counts += counts
        # An image counts for each class that it has a pixel of.
        self.support += counts.sum(axis=1) > 0
        self.ids.append(index)
        ious.append(segment.iou(counts))
        total = counts.sum()
        accuracy.append(np.trace(counts) / total if total else np.nan)
        if total:
          seen = _Seen(index, found, float(np.nanmean(ious[-1])), accuracy[-1])
          self._worst.append(seen)
      # Sorted by mIoU; the worst ones so far are kept, with their masks.
      # Whole masks of a large set would not fit into memory.
      self._worst.sort(key=lambda seen: (seen.miou, seen.accuracy))
      del self._worst[most_mistakes:]
    if not self.ids:
      raise ValueError(f"all {len(source)} images of {source.name} are broken")
    self.ious, self.accuracy = np.array(ious), np.array(accuracy)
    # The net may have more classes than the data.
    known = segment.iou(self.counts)[: len(source.class_names)]
    self._known = np.flatnonzero(~np.isnan(known)).tolist()
    self._iou = known
    self._miou = float(known[self._known].mean()) if self._known else 0.0

  def lead(self) -> tuple[str, str]:
    """The page's first sentence, but for its end: the number, and the rest."""
    broken = len(self.source) - len(self.ids)
    left_out = f" ({broken} broken ones were left out)" if broken else ""
    commonest, guess = self._guess()
    verdict = ""
    if self._miou <= guess:
      verdict = (
        f" (no better than guessing: always saying {commonest} gives "
        f"{guess:.1%})"
      )
    return f"{self._miou:.1%}", (
      f"mean IoU over {len(self._known)} classes in {len(self.ids):,} images"
      f"{left_out}, at their original sizes{verdict}"
    )

  def _guess(self) -> tuple[str, float]:
    """The commonest class, and the mean IoU of all pixels being of it.

    Its IoU is its share of the pixels then, and the others' are 0: the mean
    divides by the number of classes.
    """
    pixels = self.counts.sum(axis=1)
    share = pixels.max() / max(int(pixels.sum()), 1)
    return self.names[int(pixels.argmax())], float(
      share / max(np.count_nonzero(pixels), 1)
    )

  def cards(self) -> list[tuple[str, str, str]]:
    """Numbers to show: what it is, the number, a remark."""
    total = max(int(self.counts.sum()), 1)
    pixels = self.counts.sum(axis=1)
    recall = np.diag(self.counts)[pixels > 0] / pixels[pixels > 0]
    commonest, guess = self._guess()
    cards = [
      ("mean IoU", f"{self._miou:.1%}", "each class counted alike"),
      ("right pixels", f"{np.trace(self.counts) / total:.1%}", "of all pixels"),
      (
        "mean recall",
        f"{recall.mean() if recall.size else 0:.1%}",
        "right pixels of a class",
      ),
      ("guessing", f"{guess:.1%}", f"always {commonest}"),
    ]
    if self._known:
      worst = min(self._known, key=lambda label: self._iou[label])
      number = f"{self._iou[worst]:.1%}"
      cards.append(("worst class", number, f"IoU of {self.names[worst]}"))
    return [*cards, ("evaluated", f"{len(self.ids):,}", "images")]

  def sections(self) -> dict[str, Any]:
    """Parts of the page by their titles, in order."""
    return {
      "Classes": self._classes(),
      "Confusion": confusion.view(self.counts, self.names, "pixels"),
      "Worst images": self._images(),
    }

  def lines(self) -> Iterator[Sequence[object]]:
    """Of `predictions.csv`: its head, and a line for each image."""
    names = [self.names[label] for label in self._known]
    yield ["name", "miou", "pixel_accuracy", *(f"iou_{x}" for x in names)]
    for row, index in enumerate(self.ids):
      ious = self.ious[row, self._known]
      # Absent classes are NaN, and don't count.
      seen = ious[~np.isnan(ious)]
      numbers = [seen.mean() if seen.size else np.nan, self.accuracy[row]]
      yield [
        examples.located(self.source, index),
        *("" if np.isnan(x) else f"{x:.6f}" for x in [*numbers, *ious]),
      ]

  def _classes(self) -> dict[str, Any]:
    """IoU, precision and recall of every class that occurs."""
    pixels, said = self.counts.sum(axis=1), self.counts.sum(axis=0)
    right, total = np.diag(self.counts), max(int(self.counts.sum()), 1)
    ious = segment.iou(self.counts)
    occurs = np.flatnonzero(pixels + said).tolist()
    rows = [
      [
        self.names[label],
        int(self.support[label]),
        pixels[label] / total,
        float(ious[label]),
        right[label] / said[label] if said[label] else None,
        right[label] / pixels[label] if pixels[label] else None,
      ]
      for label in occurs
    ]
    return {"rows": rows, "absent": len(self.names) - len(occurs)}

  def _images(self) -> dict[str, Any]:
    """The images with the least mean IoU, and how the others lie."""
    mious = [
      float(np.nanmean(row)) for row in self.ious if not np.isnan(row).all()
    ]
    low, middle, high = (
      np.quantile(mious, (0.1, 0.5, 0.9)) if mious else (0,) * 3
    )
    shown = [self._image(seen) for seen in self._worst]
    present = sorted({label for one in shown for label in one["labels"]})
    colours = segment.palette()
    return {
      "low": float(low),
      "middle": float(middle),
      "high": float(high),
      "total": len(self.ids),
      "worst": shown,
      "legend": [
        (self.names[label], "rgb({}, {}, {})".format(*colours[label]))
        for label in present
        if label  # the background has no colour over an image
      ],
    }

  def _image(self, seen: _Seen) -> dict[str, Any]:
    """An image under its truth, under what was found, and where that errs."""
    truth = self.source.mask(seen.index)
    image = pictures.shrink(pictures.pixels(self.source, seen.index), _SIDE)
    size = image.shape[:2]
    # Nearest: a mask's indices can't be mixed.
    true, said = (
      segment.classes_of({"classes": mask}, *size)
      for mask in (truth, seen.classes)
    )
    wrong = (true != said) & (true < len(self.names))
    # Grey, so that the errors' colour stands out.
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    errors = np.where(wrong[..., None], _WRONG, grey // 2 + 96)
    labels = np.union1d(true, said)
    return {
      "pictures": [
        (name, pictures.encode(picture))
        for name, picture in (
          ("truth", segment.overlay(image, true)),
          ("found", segment.overlay(image, said)),
          ("wrong", errors.astype(np.uint8)),
        )
      ],
      "labels": labels[labels < len(self.names)].tolist(),
      "miou": seen.miou,
      "accuracy": seen.accuracy,
      "place": pictures.place(self.source, seen.index),
    }
