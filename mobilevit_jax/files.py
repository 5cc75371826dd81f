"""Files and folders that are there whole, or as they were before."""

from collections.abc import Iterator
import contextlib
import errno
import importlib.util
import os
import pathlib
from typing import Any

from etils import epath


@contextlib.contextmanager
def whole(path: epath.PathLike, *, force: bool = False) -> Iterator[Any]:
  """A place beside `path` for a file or folder, which then takes that name.

  So `path` appears whole or, after an error or a kill, is what it was before.

  Args:
    path: local or remote; its folder is made if need be.
    force: replace what exists.

  Yields:
    The path to write at, with the same ending.

  Raises:
    FileExistsError: if `path` exists, without `force`.
  """
  path = epath.Path(path)
  # In the same folder, so that renaming stays within one file system, where it
  # is atomic.
  part = path.with_name(f".part-{path.name}")
  old = path.with_name(f".old-{path.name}")
  if old.exists() and not path.exists():
    old.rename(path)  # it was killed between the two renames below
  check_free(path, force)
  path.parent.mkdir(parents=True, exist_ok=True)
  _remove(part)
  try:
    yield part
    sync(part)  # before it has the name: else a power cut may leave it empty
    if part.is_dir() and path.exists():  # nothing can be renamed onto a folder
      path.rename(old)
    # Either name now holds a whole file; there is no moment without one.
    part.replace(path)
    sync(path.parent, deep=False)
  finally:
    _remove(part)
  _remove(old)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a file, whether it exists or not; see `whole`."""
  with whole(path, force=True) as part:
    part.write_text(text)


def read_lines(path: epath.PathLike) -> list[str]:
  """Lines of a text file, whatever bytes it holds; none if it isn't there.

  A line ends with a newline alone, so that a record is not cut by what else
  Unicode counts as one.
  """
  path = epath.Path(path)
  if not path.exists():
    return []
  text = path.read_bytes().decode("utf-8", "backslashreplace")
  return [line for line in text.split("\n") if line]


def printable(text: str) -> str:
  """A text for a terminal: one line, in which nothing is a command to it.

  Names of files and classes are others' to choose: they may hold newlines,
  escape sequences, and bytes that are no UTF-8.
  """
  return "".join(
    mark
    if mark.isprintable()
    else mark.encode("unicode_escape").decode("ascii")
    for mark in text
  )


def append_text(path: epath.Path, text: str) -> None:
  """Adds to the end of a file, which need not exist."""
  if is_local(path):
    with path.open("a") as end:
      end.write(text)
  else:  # objects of a bucket are written whole
    old = path.read_text() if path.exists() else ""
    path.write_text(old + text)


def is_local(path: epath.PathLike) -> bool:
  """Whether a path is one of this machine's, and not in a bucket."""
  return "://" not in os.fspath(path)


def check_reachable(path: epath.PathLike) -> None:
  """Refuses a bucket that nothing which is installed can read.

  Raises:
    OSError: naming what to install, in one line.
  """
  able = ("gcsfs", "tensorflow")  # etils takes either
  remote = os.fspath(path).startswith("gs://")
  if remote and not any(map(importlib.util.find_spec, able)):
    raise OSError(
      f"{path} needs gcsfs, which is not installed: "
      "pip install 'mobilevit-jax[gcs]'"
    )


def sync(path: epath.PathLike, *, deep: bool = True) -> None:
  """Returns when a local file, or a folder and all in it, is on the disk.

  Args:
    path: remote ones are their storage's own care, and left alone.
    deep: without it a folder alone: its list of names.
  """
  local = pathlib.Path(path)
  inside = [*local.rglob("*")] if deep and local.is_dir() else []
  for one in (*inside, local):
    try:
      number = os.open(one, os.O_RDONLY)
    except FileNotFoundError:
      continue  # another process took it away meanwhile
    try:
      os.fsync(number)
    except OSError as error:
      # Some network storage can't, and does it at each close.
      if error.errno not in (errno.EINVAL, errno.ENOTSUP):
        raise
    finally:
      os.close(number)


def check_free(path: epath.PathLike, force: bool) -> None:
  """Refuses to write over something, unless forced."""
  if epath.Path(path).exists() and not force:
    raise FileExistsError(f"{path} exists; --force (force=True) replaces it")


def _remove(path: epath.Path) -> None:
  if path.is_dir():
    path.rmtree()
  else:
    path.unlink(missing_ok=True)
