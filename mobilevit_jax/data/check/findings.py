"""What is said of the images of a data set: broken, doubled, small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data.check import scan

TINY = 32  # pixels: what is left of such a side after the net's five halvings

_NAMED = 3  # files named in a line


class Findings:
  """What is said of the images of all splits together."""

  def __init__(
    self,
    names: Sequence[str],
    scans: Sequence[scan.Scan],
    class_names: Sequence[str],
    size: int | None,
  ):
    self._names, self._scans = names, scans
    self._class_names, self._size = class_names, size
    self._split = np.concatenate(
      [np.full(len(one.records), place) for place, one in enumerate(scans)]
    )
    self._index = np.concatenate([np.arange(len(one.records)) for one in scans])
    self._all = np.concatenate([one.records for one in scans])
    self._usable = self._all["usable"]
    # Copies, found by the first of each group of equal pixels.
    _, first, group = np.unique(
      self._all["pixels"], return_index=True, return_inverse=True
    )
    self._first = np.where(self._usable, first[group], np.arange(len(group)))
    self._label = self._all["label"]

  def rows(self) -> list[tuple[str, tuple[int, ...]]]:
    """A count for each split of everything that was looked for."""
    files = self._repeats(self._all["contents"])
    everywhere: list[tuple[str, np.ndarray]] = [
      ("broken", ~self._usable),
      ("copies of a file in the split", files),
      ("same pixels in another file", self._copies() & ~files),
      (f"same pixels as one in {self._names[0]}", self._leaked()),
      ("same pixels with another class", self._contradicting()),
      ("looks like another, not the same", self._alike()),
      (f"a side under {TINY} px", self._tiny()),
    ]
    if self._size is not None:
      everywhere.append(
        (f"a side under half of {self._size} px", self._small())
      )
    everywhere.append(("grey", self._all["grey"]))
    places = range(len(self._names))
    return [
      (name, tuple(int((mask & (self._split == p)).sum()) for p in places))
      for name, mask in everywhere
    ]

  def problems(self, on_bad_image: str) -> Iterable[str]:
    """Reasons not to train, but for those about classes."""
    for place, name in enumerate(self._names):
      here = self._split == place
      broken = int((here & ~self._usable).sum())
      if 2 * broken > here.sum():
        yield f"{broken} of {here.sum()} images of {name} are broken"
      usable = here & self._usable
      if place and usable.any() and (self._leaked() & here)[usable].all():
        yield (
          f"every image of {name} is also in {self._names[0]}: accuracy on "
          "images that were learnt by heart says nothing; keep some apart"
        )
    if on_bad_image == "error":
      yield from self.broken()

  def unreadable(self) -> Iterable[str]:
    """Files that can't be read."""
    for name, one in zip(self._names, self._scans, strict=True):
      if one.unreadable:
        first = next(iter(sorted(one.unreadable.items())))[1]
        count = number(one.unreadable, "image")
        yield f"{count} of {name} can't be read, as {first}"

  def broken(self) -> Iterable[str]:
    """Images that can't be decoded."""
    for name, one in zip(self._names, self._scans, strict=True):
      if one.errors:
        files = [
          examples.located(one.source, index) for index in sorted(one.errors)
        ]
        yield (
          f"{number(files, 'broken image')} in {name} (remove or replace, or "
          "train with --config.data.on_bad_image=replace): "
          f"{listed(files)}"
        )

  def warnings(self) -> Iterable[str]:
    """What to look at."""
    leaked = np.flatnonzero(self._leaked())
    if leaked.size:
      part = leaked.size / max(1, int((self._split > 0).sum()))
      yield (
        f"{number(leaked, 'image')} to evaluate with ({part:.1%}) also in "
        f"{self._names[0]}, which flatters the accuracy (remove one of each "
        f"pair): {self._pairs(leaked)}"
      )
    mixed = self._contradicting()
    if mixed.any():
      wrong = np.flatnonzero(mixed & (self._label != self._label[self._first]))
      yield (
        f"{mixed.sum()} images with the same pixels as one of another class "
        f"(keep the right one): {self._pairs(wrong, classes=True)}"
      )
    copies = np.flatnonzero(self._copies() & ~mixed)
    if copies.size:
      yield (
        f"{number(copies, 'copy', 'copies')} within a split, which count twice "
        f"(remove one of each pair): {self._pairs(copies)}"
      )
    alike = np.flatnonzero(self._alike())
    if alike.size:
      yield (
        f"{number(alike, 'image')} that may be a copy in another size or tone "
        f"(look at each pair): {self._pairs(alike, key='look')}"
      )
    yield from self._size_warnings()

  def _size_warnings(self) -> Iterable[str]:
    checks = [(self._tiny(), f"a side under {TINY} px, too small to show much")]
    if self._size is not None:
      text = f"a side under half of the {self._size} px that they are trained"
      checks.append((self._small(), f"{text} at (set a smaller size)"))
    for mask, what in checks:
      some = np.flatnonzero(mask)
      if some.size:
        files = [self._name(index) for index in some[:_NAMED]]
        yield (
          f"{some.size} of {len(mask)} images with {what}: "
          f"{listed(files, some.size)}"
        )

  def _copies(self) -> np.ndarray:
    """Images whose pixels an earlier one of their split has."""
    return self._repeats(self._all["pixels"])

  def _repeats(self, values: np.ndarray) -> np.ndarray:
    """Usable images with the value of an earlier one of their split."""
    result = np.zeros(len(values), bool)
    for place in range(len(self._names)):
      ids = np.flatnonzero(self._usable & (self._split == place))
      first = np.unique(values[ids], return_index=True)[1]
      result[np.delete(ids, first)] = True
    return result

  def _leaked(self) -> np.ndarray:
    """Images outside of the first split that it holds too."""
    return self._usable & (self._split > 0) & (self._split[self._first] == 0)

  def _contradicting(self) -> np.ndarray:
    """Images with the pixels of one of another class."""
    mixed = self._first[self._label != self._label[self._first]]
    return self._usable & np.isin(self._first, mixed)

  def _alike(self) -> np.ndarray:
    """Images that look like an earlier one of other pixels, in any split."""
    look = self._all["look"]
    ids = np.flatnonzero((look != 0) & (self._first == np.arange(len(look))))
    first = np.unique(look[ids], return_index=True)[1]
    result = np.zeros(len(look), bool)
    result[np.delete(ids, first)] = True
    return result

  def _tiny(self) -> np.ndarray:
    return self._usable & (self._shorter() < TINY)

  def _small(self) -> np.ndarray:
    return self._usable & (2 * self._shorter() < (self._size or 0))

  def _shorter(self) -> np.ndarray:
    return np.minimum(self._all["height"], self._all["width"])

  def _name(self, index: int) -> str:
    return examples.located(
      self._scans[self._split[index]].source, int(self._index[index])
    )

  def _pairs(
    self, ids: np.ndarray, *, key: str = "pixels", classes: bool = False
  ) -> str:
    """The first images with the ones that they equal."""
    pairs = []
    for index in ids[:_NAMED]:
      same = self._usable & (self._all[key] == self._all[key][index])
      other = int(np.flatnonzero(same)[0])
      text = f"{self._name(index)} = {self._name(other)}"
      if classes:
        mine, its = (int(self._label[i]) for i in (index, other))
        text += f" ({self._class_names[mine]} and {self._class_names[its]})"
      pairs.append(text)
    return listed(pairs, len(ids))


def number(
  things: Sequence | Mapping | np.ndarray, one: str, many: str | None = None
) -> str:
  """`1 image`, `2 images`."""
  count = len(things)
  return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def listed(names: Sequence[str], count: int | None = None) -> str:
  """The first few names, and how many more there are."""
  left = (len(names) if count is None else count) - len(names[:_NAMED])
  return "; ".join([*names[:_NAMED], *[f"and {left} more"] * (left > 0)])
