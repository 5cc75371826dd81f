"""Where images come from: random access to (image, label) by number.

`make_source` knows three kinds: `digits`, a small set inside scikit-learn that
needs no network; `folder`, a folder of class sub-folders; and, by any other
name, a TensorFlow Datasets classification set (`tfds_source`).
"""

from __future__ import annotations

from concurrent import futures
import dataclasses
import hashlib
import os
import pathlib
from typing import Protocol

import numpy as np

_EXTENSIONS = (".jpeg", ".jpg", ".png")
_NUM_TEST_DIGITS = 360
# One file in five: those whose SHA-1 begins with a byte below 51.
_VAL_HASHES = 51


@dataclasses.dataclass(frozen=True)
class Example:
  """One labelled image.

  Attributes:
    image: the encoded file, or uint8 pixels [h, w, 3] in RGB order.
    label: class, from 0.
    id: the example's number in its source.
    name: what a person would find it by, for error messages.
  """

  image: bytes | np.ndarray
  label: int
  id: int
  name: str


class Source(Protocol):
  """Random access to examples; may be pickled and read by many threads."""

  name: str
  class_names: tuple[str, ...]

  @property
  def num_classes(self) -> int:
    """Number of classes."""
    ...

  def __len__(self) -> int:
    """Number of examples."""
    ...

  def __getitem__(self, index: int) -> Example:
    """The example of that number, from 0."""
    ...


def make_source(
  name: str,
  split: str,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  prepare: bool = True,
) -> Source:
  """Opens a data set.

  Args:
    name: `digits`, `folder`, or a TFDS name, as `dataset[/config][:version]`.
    split: `train` or `test` for digits, `train` or `val` for a folder without
      split sub-folders, any split expression (`train[:90%]`) for TFDS.
    data_dir: the folder; for TFDS, where data sets are kept (by default
      `~/tensorflow_datasets` or `TFDS_DATA_DIR`).
    prepare: whether to download and prepare a TFDS data set that isn't there
      yet. Only one process of a run may do so.

  Returns:
    The source.

  Raises:
    ValueError: if there is no such data set, split or folder, or its contents
      can't be used.
  """
  if name == "digits":
    return digits(split)
  if name == "folder":
    if data_dir is None:
      raise ValueError("data_dir: None must be the folder to read.")
    return folder(data_dir, split)
  # Imported late: it takes seconds, and only TFDS sets need it.
  from mobilevit_jax.data import tfds_source

  return tfds_source.open_split(name, split, data_dir=data_dir, prepare=prepare)


class _ArraySource:
  """Decoded images in memory."""

  def __init__(
    self,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
  ):
    self.name = name
    self.class_names = class_names
    self._images = images
    self._labels = labels

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, index: int) -> Example:
    label = int(self._labels[index])
    return Example(self._images[index], label, index, f"{self.name}#{index}")


def digits(split: str) -> Source:
  """scikit-learn's 1,797 handwritten digits, uint8 [8, 8, 3].

  Args:
    split: `test`, the last 360 of `numpy.random.default_rng(0)
      .permutation(1797)`, or `train`, the other 1,437.

  Returns:
    The source.

  Raises:
    ValueError: if there is no such split.
  """
  if split not in ("train", "test"):
    raise ValueError(f"split: {split!r}: digits has 'train' and 'test'.")
  # Imported late: scikit-learn takes a second, and only digits needs it.
  from sklearn import datasets

  images, labels = datasets.load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(len(labels))
  cut = len(labels) - _NUM_TEST_DIGITS
  ids = order[:cut] if split == "train" else order[cut:]
  # The scans are counts from 0 to 16.
  grey = np.round(images[ids] * (255 / 16)).astype(np.uint8)
  pixels = np.repeat(grey.reshape(-1, 8, 8, 1), 3, axis=-1)
  names = tuple(str(digit) for digit in range(10))
  return _ArraySource(f"digits/{split}", pixels, labels[ids], names)


class _FolderSource:
  """Image files under a folder, read when they are asked for."""

  def __init__(
    self,
    name: str,
    root: str,
    files: list[tuple[str, int]],
    class_names: tuple[str, ...],
  ):
    self.name = name
    self.class_names = class_names
    self._root = root
    self._paths = [path for path, _ in files]
    self._labels = np.array([label for _, label in files], np.int32)

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> Example:
    path = os.path.join(self._root, self._paths[index])
    with open(path, "rb") as file:
      return Example(file.read(), int(self._labels[index]), index, path)


def folder(data_dir: str | os.PathLike[str], split: str) -> Source:
  """JPEG and PNG files in a folder of class sub-folders.

  If `data_dir/<split>` holds class sub-folders, these are the split, and the
  classes are those of `data_dir/train` if that is there. Otherwise the
  sub-folders of `data_dir` are the classes, and `val` is the fifth of the
  files whose contents have a SHA-1 under 51 in the first byte, `train` the
  rest; this reads every file once, and copies of one image stay together.
  Classes and files are in the order of their names. Hidden files, and symbolic
  links that lead out of `data_dir`, are ignored.

  Args:
    data_dir: the folder.
    split: see above.

  Returns:
    The source.

  Raises:
    ValueError: if the folder is missing or holds no classes, no images or no
      such split, or a split has a class that `train` lacks.
  """
  top = pathlib.Path(data_dir).expanduser().resolve()
  if not top.is_dir():
    raise ValueError(f"data_dir: {str(data_dir)!r} is not a folder.")
  split_layout = split not in ("", ".", "..") and "/" not in split
  split_layout = split_layout and bool(_subfolders(top / split, top))
  root = top / split if split_layout else top
  classes = _subfolders(root, top)
  if not classes:
    raise ValueError(
      f"data_dir: {str(data_dir)!r} has no class sub-folders: expected "
      "data_dir/CLASS/IMAGE or data_dir/SPLIT/CLASS/IMAGE."
    )
  if split_layout:
    known = _subfolders(top / "train", top) or classes
    if unseen := sorted(set(classes) - set(known)):
      raise ValueError(
        f"data_dir: split {split!r} of {str(data_dir)!r} has the class "
        f"{unseen[0]!r}, which is not in its train split."
      )
    classes = known
  elif split not in ("train", "val"):
    raise ValueError(
      f"split: {split!r} is not a sub-folder of {str(data_dir)!r} with class "
      "sub-folders; without one there are 'train' and 'val'."
    )
  files = [
    (path, label)
    for label, name in enumerate(classes)
    for path in _images(root, name, top)
  ]
  if not split_layout:
    files = _hashed(root, files, val=split == "val")
  if not files:
    raise ValueError(
      f"data_dir: {str(data_dir)!r} has no {'/'.join(_EXTENSIONS)} images for "
      f"the split {split!r} (links that lead out of it are not followed)."
    )
  return _FolderSource(f"folder/{split}", str(root), files, tuple(classes))


def _subfolders(root: pathlib.Path, top: pathlib.Path) -> list[str]:
  """Sorted names of the folders in `root` that lie inside of `top`."""
  if not root.is_dir():
    return []
  return sorted(
    entry.name
    for entry in os.scandir(root)
    if entry.is_dir() and _is_inside(entry.path, entry.name, top)
  )


def _images(root: pathlib.Path, name: str, top: pathlib.Path) -> list[str]:
  """Sorted paths, from `root`, of the images of one class."""
  found = []
  for parent, folders, files in os.walk(root / name):
    folders[:] = [entry for entry in folders if not entry.startswith(".")]
    for entry in files:
      path = os.path.join(parent, entry)
      if entry.lower().endswith(_EXTENSIONS) and _is_inside(path, entry, top):
        found.append(os.path.relpath(path, root))
  return sorted(found)


def _is_inside(path: str, name: str, top: pathlib.Path) -> bool:
  # Only links are resolved: that is slow, and nothing else can lead astray.
  if name.startswith("."):
    return False
  return not os.path.islink(path) or pathlib.Path(
    path
  ).resolve().is_relative_to(top)


def _hashed(
  root: pathlib.Path, files: list[tuple[str, int]], *, val: bool
) -> list[tuple[str, int]]:
  """Keeps the files of one side of the split by contents."""

  def is_val(file: tuple[str, int]) -> bool:
    digest = hashlib.sha1(
      (root / file[0]).read_bytes(), usedforsecurity=False
    ).digest()
    return digest[0] < _VAL_HASHES

  with futures.ThreadPoolExecutor() as pool:
    sides = pool.map(is_val, files)
    return [
      file for file, side in zip(files, sides, strict=True) if side == val
    ]
