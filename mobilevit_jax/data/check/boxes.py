"""What is said of the boxes of a data set: wrong ones, small ones, none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data.boxes import Boxed
from mobilevit_jax.data.boxes import FAULTS
from mobilevit_jax.data.boxes import wrong
from mobilevit_jax.data.check import findings
from mobilevit_jax.data.check import scan

# From boxes `[n, 4]`, as parts of an image, and its side in pixels to those
# that the net's anchors match.
Fits = Callable[[np.ndarray, int], np.ndarray]


class BoxFindings:
  """What is said of the boxes of one split."""

  def __init__(
    self,
    name: str,
    source: Boxed,
    found: scan.Scan,
    fits: Fits | None,
    size: int | None,
  ):
    """`found` is of the source's images; for `fits`, at `size`, see above."""
    self._name, self._source = name, source
    self._scan, self._fits, self._size = found, fits, size
    num_classes = len(self._source.class_names)
    self.images = np.zeros(num_classes, int)  # that hold each class
    self.boxes = self.empty = self.crowds = self.unmatched = 0
    self.wrong: dict[str, list[str]] = {}
    # Broken images are counted by `findings`; the truth of their boxes can't be
    # compared with a size.
    for index in np.flatnonzero(found.records["usable"]).tolist():
      self._add(index)

  def _add(self, index: int) -> None:
    record, truth = self._scan.records[index], self._source.truth(index)
    height, width = int(record["height"]), int(record["width"])
    self.boxes += len(truth.boxes)
    self.empty += not len(truth.boxes)
    self.crowds += int(truth.crowd.sum())
    # An image counts once for a class, however many boxes it has of it.
    self.images[np.unique(truth.classes[truth.classes >= 0])] += 1
    sound = ~truth.crowd
    where = examples.located(self._source, index)
    for what, mask in wrong(truth, height, width).items():
      # What an anchor can match is only asked of boxes that are sound, and of
      # those that training keeps: crowds are left out.
      sound &= ~mask
      for box in truth.boxes[mask].tolist():
        self.wrong.setdefault(what, []).append(f"{where} {box}")
    if self._fits and self._size and sound.any():
      # From pixels to parts of the image, as anchors are.
      parts = truth.boxes[sound] / (width, height, width, height)
      self.unmatched += int((~self._fits(parts, self._size)).sum())

  def rows(self) -> Iterator[tuple[str, int]]:
    """A name and a count for everything that was looked for."""
    yield "boxes", self.boxes
    yield "images without boxes", self.empty
    yield "crowds, or difficult", self.crowds
    if self._fits and self._size:
      yield "boxes that no anchor fits", self.unmatched
    for what in FAULTS:
      yield f"boxes {what}", len(self.wrong.get(what, ()))

  def faults(self) -> Iterator[str]:
    """Wrong boxes, by what is wrong with them."""
    for what, places in self.wrong.items():
      yield (
        f"{findings.number(len(places), 'box', 'boxes')} of {self._name} "
        f"{what} (mend them; config.transform.bad_boxes='clip' cuts them, or "
        f"leaves them out): {findings.listed(places)}"
      )

  def warnings(self) -> Iterator[str]:
    """What to look at."""
    # One box in ten: the small objects of any set would be named otherwise.
    if 10 * self.unmatched > self.boxes:
      yield (
        f"{self.unmatched} of {self.boxes} boxes of {self._name} "
        f"({self.unmatched / self.boxes:.0%}) have an IoU under 0.5 with every "
        "anchor, and are learnt from the one nearest anchor alone: mostly "
        "objects under 23 of 320 pixels; train at a larger size"
      )
    if 2 * self.empty > len(self._source):
      yield (
        f"{self.empty} of {len(self._source)} images of {self._name} have no "
        "box; nothing is learnt from those"
      )


def find(
  scans: Mapping[str, scan.Scan], fits: Fits | None, size: int | None
) -> Sequence[BoxFindings]:
  """For each split what is said of its boxes; none where it has none."""
  return [
    BoxFindings(name, found.source, found, fits, size)
    for name, found in scans.items()
    if isinstance(found.source, Boxed)
  ]
