"""Whether a labelled set of images can be trained on, and what to mend first.

`python -m mobilevit_jax.data check` prints the report; training makes
the same one before it starts, with `config.data.check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json

from etils import epath
import numpy as np

from mobilevit_jax import files
from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data.check import boxes
from mobilevit_jax.data.check import findings
from mobilevit_jax.data.check import scan

FILE = "data_check.json"  # in a run's folder

_FEWEST = 2  # training images of a class
_IMBALANCE = 10
_MOST_ROWS = 40  # of classes in the table


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found in the splits of a data set.

  Attributes:
    splits: their names, as `train` and `val`.
    images: for each split, the images in it.
    classes: for each class its name and the usable images of each split.
    findings: for each thing looked for, its name and the count in each split.
    problems: reasons to refuse to train, a line each.
    warnings: what to look at, and what to do about it, a line each.
  """

  splits: tuple[str, ...]
  images: tuple[int, ...]
  classes: tuple[tuple[str, tuple[int, ...]], ...]
  findings: tuple[tuple[str, tuple[int, ...]], ...]
  problems: tuple[str, ...]
  warnings: tuple[str, ...]

  def table(self) -> list[str]:
    """Lines for a terminal: images of each class, and what was found."""
    total = sum(counts[0] for _, counts in self.classes)
    # A terminal's page: of ImageNet's thousand classes, the rows that matter
    # are the largest and the smallest.
    classes, half = self.classes, _MOST_ROWS // 2
    if len(classes) > _MOST_ROWS:  # the largest and the smallest
      ranked = sorted(classes, key=lambda row: row[1], reverse=True)
      classes = (*ranked[:half], *ranked[-half:])
    rows: list[list[str]] = [["class", *self.splits, f"{self.splits[0]} share"]]
    empty = [""] * len(rows[0])
    for name, counts in classes:
      share = f"{counts[0] / total:.1%}" if total else "-"
      rows.append([name, *map(str, counts), share])
    if more := len(self.classes) - len(classes):
      rows.insert(1 + half, [f"({more} more classes)", *empty[1:]])
    sums = np.sum([counts for _, counts in self.classes], axis=0, dtype=int)
    rows.append(["all", *map(str, sums), ""])
    rows += [empty, ["of all images", *self.splits, ""]]
    for name, counts in (("images", self.images), *self.findings):
      rows.append([name, *map(str, counts), ""])
    return [*_aligned(rows), "", self.balance()]

  def lines(self) -> list[str]:
    """The table, and the warnings."""
    return [*self.table(), *(f"warning: {text}" for text in self.warnings)]

  def refusal(self) -> str:
    """Why this data can't be trained on; empty if it can."""
    text = ". ".join(self.problems)
    return text and f"this data can't be trained on: {text}"

  def balance(self) -> str:
    """A line on how even the classes are."""
    sizes = [counts[0] for _, counts in self.classes]
    text = f"{len(sizes)} classes of {min(sizes)} to {max(sizes)} images"
    if min(sizes):
      text += f", {max(sizes) / min(sizes):.1f} times as many"
    return f"{text} in {self.splits[0]}"

  def save(self, path: epath.PathLike) -> None:
    """Writes everything as JSON."""
    text = json.dumps(dataclasses.asdict(self), indent=2)
    files.write_text(path, text + "\n")


def load(path: epath.PathLike) -> Report:
  """Reads what `Report.save` wrote."""
  fields = json.loads(epath.Path(path).read_text())
  for name in ("classes", "findings"):
    # JSON has no tuples; a report that is read compares equal to the one that
    # was saved.
    fields[name] = tuple((row, tuple(counts)) for row, counts in fields[name])
  return Report(**{name: tuple(value) for name, value in fields.items()})


def check_splits(
  splits: Mapping[str, examples.Source],
  *,
  size: int | None = None,
  on_bad_image: str = "replace",
  progress: bool = False,
  fits: boxes.Fits | None = None,
  max_pixels: int = augment.MAX_PIXELS,
) -> Report:
  """Reads every image of the splits once.

  Args:
    splits: the training split, then the one for evaluation, by name.
    size: the least size that they are trained at, in pixels, if known.
    on_bad_image: the run's policy; with "error" a broken image is a problem.
    progress: whether to show a bar on standard error, if that is a terminal.
    fits: which boxes the net's anchors match, where the images have boxes.
    max_pixels: the most that an image may have to be decoded.

  Returns:
    What was found.
  """
  # --- Every image is read once; all that follows works on their records.
  scans = [
    scan.scan(source, progress=progress, max_pixels=max_pixels)
    for source in splits.values()
  ]
  names = tuple(splits)
  class_names = next(iter(splits.values())).class_names
  boxed = boxes.find(dict(zip(names, scans, strict=True)), fits, size)
  # Images with a class: from the boxes, from the masks, or from the labels.
  if boxed:
    counts = np.stack([one.images for one in boxed], axis=1)
  else:
    counts = np.stack([_count(one, len(class_names)) for one in scans], axis=1)
  of_pixels = any(one.classes for one in scans)
  found = findings.Findings(names, scans, class_names, size)
  problems = [
    *found.unreadable(),
    # One class of boxes is enough, and an image without any is fine.
    *(
      ()
      # Rows of counts transpose here: from one list a split to one row a
      # finding.
      if boxed
      else _class_problems(names, class_names, counts, of_pixels=of_pixels)
    ),
    *found.problems(on_bad_image),
  ]
  warnings = [*_class_warnings(names, class_names, counts), *found.warnings()]
  # With "error" they are problems already, see `Findings.problems`.
  if on_bad_image != "error":
    warnings = [*found.broken(), *warnings]
  for one in boxed:
    warnings = [*one.faults(), *warnings, *one.warnings()]
  box_rows = [[*one.rows()] for one in boxed]
  found_rows = [
    (same[0][0], tuple(count for _, count in same))
    for same in zip(*box_rows, strict=True)
  ]
  rows = zip(class_names, map(tuple, counts.tolist()), strict=True)
  return Report(
    names,
    tuple(len(one.records) for one in scans),
    tuple(rows),
    (*found_rows, *found.rows()),
    tuple(problems),
    tuple(warnings),
  )


def _count(found: scan.Scan, num_classes: int) -> np.ndarray:
  """Usable images of each class; of masks, those that have a pixel of it."""
  labels = found.records["label"][found.records["usable"]]
  # A mask counts once for each class that has a pixel in it.
  if found.classes:
    labels = np.concatenate([*found.classes.values()])
  known = (labels >= 0) & (labels < num_classes)  # else ignored pixels
  return np.bincount(labels[known], minlength=num_classes)


def _class_problems(
  names: Sequence[str],
  class_names: Sequence[str],
  counts: np.ndarray,
  *,
  # Two images, so that one can be learnt from while the other differs.
  of_pixels: bool,
) -> Iterator[str]:
  if len(class_names) < 2:
    classes = _classes(class_names)
    yield f"there must be at least 2 classes to tell apart, not {classes}"
  train = counts[:, 0]
  for what, wrong in (
    ("no usable image", train == 0),
    (f"fewer than {_FEWEST} usable images", (train > 0) & (train < _FEWEST)),
  ):
    # Of pixels a class may be rare: the net still learns the others.
    if wrong.any() and not of_pixels:
      lacking = _classes(np.array(class_names)[wrong].tolist())
      yield f"{what} to train on in {lacking}; add images, or remove the class"
  for name, total in zip(names[1:], counts[:, 1:].sum(axis=0), strict=True):
    if not total:
      yield f"split {name} has no usable image to evaluate with"


def _classes(names: Sequence[str]) -> str:
  count = findings.number(len(names), "class", "classes")
  return f"{count} ({findings.listed(names)})"


def _class_warnings(
  names: Sequence[str], class_names: Sequence[str], counts: np.ndarray
) -> Iterator[str]:
  train = counts[:, 0]
  # A class without images is a problem of its own, not an infinite ratio.
  if train.size and train.max() >= _IMBALANCE * max(train.min(), 1):
    most, least = int(train.argmax()), int(train.argmin())
    yield (
      f"classes are uneven: {train[most]} training images of "
      f"{class_names[most]}, {train[least]} of {class_names[least]}; add some "
      "to the small ones, or set --config.task.class_weights=balanced"
    )
  for name, column in zip(names[1:], counts[:, 1:].T, strict=True):
    if column.any() and not column.all():
      lacking = _classes(np.array(class_names)[column == 0].tolist())
      yield (
        f"split {name} has no image of {lacking}; its accuracy says nothing "
        "about them"
      )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Columns: the first to the left, the others to the right."""
  # As wide as its longest cell.
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  ".join(
      cell.rjust(width) if place else cell.ljust(width)
      for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]
