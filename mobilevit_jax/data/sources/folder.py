"""A folder of class sub-folders of JPEG and PNG files as a source."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import hashlib
import os
import pathlib

import numpy as np

from mobilevit_jax.data import examples

_EXTENSIONS = (".jpeg", ".jpg", ".png")
# Folders of these names that hold folders are splits, and no classes.
_SPLITS = ("train", "val", "valid", "validation", "test")
# One file in five: those whose SHA-1 begins with a byte below 51.
_VAL_HASHES = 51


class FolderSource:
  """Image files under a folder, read when they are asked for."""

  def __init__(
    self,
    name: str,
    root: str,
    files: list[tuple[str, int]],
    class_names: tuple[str, ...],
  ):
    """See `open_split`; `files` are paths from `root`, and their labels."""
    self.name = name
    self.class_names = class_names
    self._root = root
    self._paths = [path for path, _ in files]
    self._labels = np.array([label for _, label in files], np.int32)

  def __len__(self) -> int:
    """Number of images."""
    return len(self._paths)

  def __getitem__(self, index: int) -> examples.Example:
    """Reads the file of that number, from 0."""
    path, _ = self.place(index)
    target = {"label": int(self._labels[index])}
    # Without a buffer: the file is read in one go.
    try:
      with open(path, "rb", buffering=0) as file:
        image = file.read()
    except OSError as error:
      raise examples.StorageError(
        f"{path}: cannot be read: {error.strerror}"
      ) from error
    return examples.Example(image, target, index, path)

  def labels(self) -> np.ndarray:
    """The class of every image."""
    return self._labels

  def place(self, index: int) -> tuple[str, None]:
    """The file of an image."""
    return f"{self._root}/{self._paths[index]}", None


def open_split(
  data_dir: str | os.PathLike[str] | None, split: str
) -> FolderSource:
  """JPEG and PNG files in a folder of class sub-folders.

  If `data_dir/<split>` holds class sub-folders, these are the split, and the
  classes are those of `data_dir/train` if that is there. Otherwise the
  sub-folders of `data_dir` are the classes, and `val` is the fifth of the
  files whose contents have a SHA-1 under 51 in the first byte, `train` the
  rest; this reads every file once, and copies of one image stay together.
  Classes and files are in the order of their names. Hidden files, and symbolic
  links that lead nowhere, in a circle or out of `data_dir`, are ignored.

  Args:
    data_dir: the folder.
    split: see above.

  Returns:
    The source.

  Raises:
    ValueError: if the folder is missing or holds no classes, no images or no
      such split beside others, or a split has a class that `train` lacks.
  """
  if data_dir is None:
    raise ValueError("data_dir=None must be the folder to read")
  top = pathlib.Path(data_dir).expanduser().resolve()
  if not top.is_dir():
    raise ValueError(f"data_dir={str(data_dir)!r} must be a folder")
  # A split may be any folder's name, but no path that leads elsewhere.
  split_layout = split not in ("", ".", "..") and "/" not in split
  split_layout = split_layout and bool(_subfolders(top / split, top))
  root = top / split if split_layout else top
  classes = _subfolders(root, top)
  if not classes:
    raise ValueError(
      f"data_dir={str(data_dir)!r} must hold class sub-folders, as "
      "data_dir/CLASS/IMAGE or data_dir/SPLIT/CLASS/IMAGE"
    )
  # The training split's classes, so that a number means the same in both.
  if split_layout:
    known = _subfolders(top / "train", top) or classes
    if unseen := sorted(set(classes) - set(known)):
      raise ValueError(
        f"split={split!r} of data_dir={str(data_dir)!r} must have no class "
        f"that its train split lacks, as {unseen[0]!r}"
      )
    classes = known
  elif others := [name for name in _SPLITS if _is_split(top / name, top)]:
    # Else those would be taken for classes, and their classes for nothing.
    raise ValueError(
      f"split={split!r} is missing: data_dir={str(data_dir)!r} holds "
      f"{', '.join(others)} with class sub-folders, so it must hold "
      f"{split}/CLASS/IMAGE too; or move the classes up, out of {others[0]}"
    )
  elif split not in ("train", "val"):
    raise ValueError(
      f"split={split!r} must be 'train' or 'val', or a sub-folder of "
      f"data_dir={str(data_dir)!r} with class sub-folders"
    )
  files = [
    (path[len(str(root)) + 1 :], label)
    for label, name in enumerate(classes)
    if (root / name).is_dir()
    for path in sorted(_images(root / name, top))
  ]
  # Only without split folders are images divided by their contents.
  if not split_layout:
    files = _hashed(root, files, val=split == "val")
  if not files:
    raise ValueError(
      f"data_dir={str(data_dir)!r} must hold {'/'.join(_EXTENSIONS)} images "
      f"for split={split!r} (links that lead out of it are not followed)"
    )
  return FolderSource(f"folder/{split}", str(root), files, tuple(classes))


def _subfolders(root: pathlib.Path, top: pathlib.Path) -> list[str]:
  """Sorted names of the folders in `root` that lie inside of `top`."""
  if not root.is_dir():
    return []
  return sorted(
    entry.name
    for entry in os.scandir(root)
    if _may_read(entry, top) and entry.is_dir()
  )


def _is_split(folder: pathlib.Path, top: pathlib.Path) -> bool:
  """Whether it holds folders, and no images of its own."""
  return bool(_subfolders(folder, top)) and not any(
    name.lower().endswith(_EXTENSIONS) for name in os.listdir(folder)
  )


def _images(folder: pathlib.Path | str, top: pathlib.Path) -> Iterator[str]:
  """Paths of the images in a folder and its sub-folders."""
  for entry in os.scandir(folder):
    # Relative paths: the root is the same for all of them.
    if not _may_read(entry, top):
      continue
    # Linked folders below a class are not entered: they may form a circle.
    if entry.is_dir(follow_symlinks=False):
      yield from _images(entry.path, top)
    elif entry.name.lower().endswith(_EXTENSIONS) and entry.is_file():
      yield entry.path


def _may_read(entry: os.DirEntry[str], top: pathlib.Path) -> bool:
  """Whether an entry is neither hidden nor a link out of `top`."""
  if entry.name.startswith("."):
    return False
  # Only links are resolved: that is slow, and nothing else can lead astray.
  if not entry.is_symlink():
    return True
  try:
    return pathlib.Path(entry).resolve(strict=True).is_relative_to(top)
  except (OSError, RuntimeError):  # it leads nowhere, or in a circle
    return False


def _hashed(
  root: pathlib.Path, files: list[tuple[str, int]], *, val: bool
) -> list[tuple[str, int]]:
  """Keeps the files of one side of the split by contents."""

  def is_val(file: tuple[str, int]) -> bool:
    # Of the contents: renaming a file, or adding others, moves none to the
    # other side. SHA-1 as a hash, not for security.
    digest = hashlib.sha1(
      (root / file[0]).read_bytes(), usedforsecurity=False
    ).digest()
    return digest[0] < _VAL_HASHES

  with futures.ThreadPoolExecutor() as pool:
    sides = pool.map(is_val, files)
    return [
      file for file, side in zip(files, sides, strict=True) if side == val
    ]
