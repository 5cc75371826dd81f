"""What is said of the images of a data set: broken, doubled, small."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data.check import scan

TINY = 32  # pixels: what is left of such a side after the net's five halvings

# A line with every file's name would hide the next line.
_NAMED = 3  # files named in a line


class Findings:
  """What is said of the images of all splits together.

  Masks, bool [images of all splits], say which images are meant.
  """

  def __init__(
    self,
    names: Sequence[str],
    scans: Sequence[scan.Scan],
    class_names: Sequence[str],
    size: int | None,
  ):
    self._names, self._scans = names, scans
    self._class_names, self._size = class_names, size
    lengths = [len(one.records) for one in scans]
    # All splits lie in one array, so that copies are found across splits;
    # `_split` and `_index` lead back to the images.
    self._split = np.repeat(np.arange(len(scans)), lengths)
    self._index = np.concatenate([np.arange(length) for length in lengths])
    self._all = np.concatenate([one.records for one in scans])
    usable = self._usable = self._all["usable"]
    self._damaged = usable & self._all["damaged"]
    # Copies, found by the first of each group of equal pixels.
    _, first, group = np.unique(
      self._all["pixels"], return_index=True, return_inverse=True
    )
    ids = np.arange(len(usable))
    # A broken image has no pixels to compare: it is the first of its own.
    first = np.where(usable, first[group], ids)
    label = self._all["label"]
    self._other_class = label != label[first]
    self._contradicting = usable & np.isin(first, first[self._other_class])
    # In an evaluation split, while its first copy is in the training split.
    self._leaked = usable & (self._split > 0) & (self._split[first] == 0)
    self._copies = self._repeats_in_split("pixels")
    self._same_files = self._repeats_in_split("contents")
    # Of other pixels, in any split.
    self._alike = self._repeats(
      "look", (self._all["look"] != 0) & (first == ids)
    )
    shorter = np.minimum(self._all["height"], self._all["width"])
    self._tiny = usable & (shorter < TINY)
    self._small = usable & (2 * shorter < (size or 0))

  def _repeats(self, key: str, mask: np.ndarray) -> np.ndarray:
    """Those of the mask that have the value of an earlier one."""
    ids = np.flatnonzero(mask)
    # `np.unique` gives the first of each value; what is left after deleting
    # those repeats one.
    _, first = np.unique(self._all[key][ids], return_index=True)
    return np.isin(np.arange(len(mask)), np.delete(ids, first))

  def _repeats_in_split(self, key: str) -> np.ndarray:
    masks = [self._usable & (self._split == p) for p in range(len(self._names))]
    return np.any([self._repeats(key, mask) for mask in masks], axis=0)

  def rows(self) -> list[tuple[str, tuple[int, ...]]]:
    """A count for each split of everything that was looked for."""
    masks = {
      "broken": ~self._usable,
      "damaged, but decoded": self._damaged,
      "copies of a file in the split": self._same_files,
      "same pixels in another file": self._copies & ~self._same_files,
      f"same pixels as one in {self._names[0]}": self._leaked,
      "same pixels with another class": self._contradicting,
      "looks like another, not the same": self._alike,
      f"a side under {TINY} px": self._tiny,
      f"a side under half of {self._size} px": self._small,
      "grey": self._all["grey"],
    }
    return [
      (name, tuple(self._count(mask).tolist()))
      for name, mask in masks.items()
      if self._size is not None or mask is not self._small
    ]

  def _count(self, mask: np.ndarray) -> np.ndarray:
    """Images of a mask in each split."""
    return np.bincount(self._split[mask], minlength=len(self._names))

  def problems(self, on_bad_image: str) -> Iterable[str]:
    """Reasons not to train, but for those about classes."""
    usable, leaked = self._count(self._usable), self._count(self._leaked)
    for place, name in enumerate(self._names):
      total = len(self._scans[place].records)
      broken = total - usable[place]
      # A few broken files are normal in scraped sets; half of one is a sign
      # that something else went wrong, such as an interrupted copy.
      if 2 * broken > total:
        yield f"{broken} of {total} images of {name} are broken"
      if place and 0 < usable[place] == leaked[place]:
        yield (
          f"every image of {name} is also in {self._names[0]}: accuracy on "
          "images that were trained on does not measure anything; keep some "
          "images apart"
        )
    if on_bad_image == "error":
      yield from self.broken()

  def unreadable(self) -> Iterable[str]:
    """Files that can't be read."""
    for name, one in zip(self._names, self._scans, strict=True):
      if one.unreadable:
        first = one.unreadable[min(one.unreadable)]
        count = number(len(one.unreadable), "image")
        yield f"{count} of {name} can't be read, as {first}"

  def broken(self) -> Iterable[str]:
    """Images that can't be decoded."""
    for name, one in zip(self._names, self._scans, strict=True):
      if one.errors:
        files = [examples.located(one.source, i) for i in sorted(one.errors)]
        yield (
          f"{number(len(files), 'broken image')} in {name} (remove or replace, "
          "or train with --config.data.on_bad_image=replace): "
          f"{listed(files)}"
        )

  def warnings(self) -> Iterable[str]:
    """What to look at."""
    leaked, mixed = self._leaked.sum(), self._contradicting
    part = leaked / max(1, np.count_nonzero(self._split))
    copies = self._copies & ~mixed
    total = f"of {len(mixed)} images with a side under"
    # Each row: the images meant, the hash that pairs them (if any), the text.
    for mask, key, text in (
      (
        self._damaged,
        "",
        f"{number(self._damaged.sum(), 'image')} that can be decoded, though "
        "the file is cut or spoilt, and may be grey in part (look at each, and "
        "replace it)",
      ),
      (
        self._leaked,
        "pixels",
        f"{number(leaked, 'image')} to evaluate with ({part:.1%}) also in "
        f"{self._names[0]}, which flatters the accuracy (remove one of each "
        "pair)",
      ),
      (
        mixed & self._other_class,
        "pixels",
        f"{mixed.sum()} images with the same pixels as one of another class "
        "(keep the right one)",
      ),
      (
        copies,
        "pixels",
        f"{number(copies.sum(), 'copy', 'copies')} within a split, which count "
        "twice (remove one of each pair)",
      ),
      (
        self._alike,
        "look",
        f"{number(self._alike.sum(), 'image')} that may be a copy in another "
        "size or tone (look at each pair)",
      ),
      (
        self._tiny,
        "",
        f"{self._tiny.sum()} {total} {TINY} px, too small to show much",
      ),
      (
        self._small,
        "",
        f"{self._small.sum()} {total} half of the {self._size} px that they "
        "are trained at (set a smaller size)",
      ),
    ):
      ids = np.flatnonzero(mask)
      if ids.size:
        some = [self._describe(index, key) for index in ids[:_NAMED]]
        yield f"{text}: {listed(some, ids.size)}"

  def _describe(self, index: int, key: str) -> str:
    """An image and, if there is a key, the first one that equals it in that."""
    if not key:
      return self._name(index)
    # Copies share the hash that the finding is about.
    same = self._usable & (self._all[key] == self._all[key][index])
    first = int(same.argmax())
    text = f"{self._name(index)} = {self._name(first)}"
    one, other = self._all["label"][[index, first]].tolist()
    if one != other:
      text += f" ({self._class_names[one]} and {self._class_names[other]})"
    return text

  def _name(self, index: int) -> str:
    source = self._scans[self._split[index]].source
    return examples.located(source, int(self._index[index]))


def number(count: int, one: str, many: str | None = None) -> str:
  """`1 image`, `2 images`."""
  return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def listed(names: Sequence[str], count: int | None = None) -> str:
  """The first few names, and how many more there are."""
  left = (len(names) if count is None else count) - len(names[:_NAMED])
  return "; ".join([*names[:_NAMED], *[f"and {left} more"] * (left > 0)])
