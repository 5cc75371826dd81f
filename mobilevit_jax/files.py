"""Files and folders that are there whole, or as they were before."""

from collections.abc import Iterator
import contextlib
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
  part = path.with_name(f".part-{path.name}")
  old = path.with_name(f".old-{path.name}")
  if old.exists() and not path.exists():
    old.rename(path)  # it was killed between the two renames below
  check_free(path, force)
  path.parent.mkdir(parents=True, exist_ok=True)
  _remove(part)
  try:
    yield part
    if pathlib.Path(part).is_file():  # and neither a folder nor remote
      # On disk before it has the name: else a power cut may leave it empty.
      with part.open("rb") as file:
        os.fsync(file.fileno())
    if part.is_dir() and path.exists():  # nothing can be renamed onto a folder
      path.rename(old)
    part.replace(path)
  finally:
    _remove(part)
  _remove(old)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a file, whether it exists or not; see `whole`."""
  with whole(path, force=True) as part:
    part.write_text(text)


def check_free(path: epath.PathLike, force: bool) -> None:
  """Refuses to write over something, unless forced."""
  if epath.Path(path).exists() and not force:
    raise FileExistsError(f"{path} exists; --force (force=True) replaces it")


def _remove(path: epath.Path) -> None:
  if path.is_dir():
    path.rmtree()
  else:
    path.unlink(missing_ok=True)
