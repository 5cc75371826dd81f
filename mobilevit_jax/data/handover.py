"""How a batch gets from a worker process to its parent: through memory.

A worker writes a batch into a file of a folder in memory, and the parent takes
the file's name away as it maps it: nothing is copied, and what is mapped goes
with the array that needs it. The folder belongs to whoever holds its lock, and
that ends with the process, however it ends. So a start finds what killed runs
left, and removes it.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import dataclasses
import errno
import fcntl
import mmap
import os
import pathlib
import shutil
import tempfile
import uuid

import numpy as np

_PREFIX = "mobilevit-"
_MEMORY = pathlib.Path("/dev/shm")  # Linux; elsewhere files are mapped as well
_SEMAPHORES = "semaphores"  # a file in the folder
_ALIGN = 64  # bytes, of a cache line: JAX may use such an array as it is


def _top() -> pathlib.Path:
  # Where there is no /dev/shm, pages of a temporary file stay in the page
  # cache, which is memory too as long as there is enough.
  fits = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
  return _MEMORY if fits else pathlib.Path(tempfile.gettempdir())


def remove_leftovers() -> int:
  """Removes the folders of processes that were killed; says how many.

  Those of other users can't be read, and of processes at work not locked.
  """
  removed = 0
  for folder in _top().glob(f"{_PREFIX}*"):
    # OSError means that a process at work holds the lock, or that the folder is
    # another user's: both are to be left alone.
    with contextlib.suppress(OSError):
      lock = _locked(folder)
      _remove_semaphores(folder / _SEMAPHORES)
      shutil.rmtree(folder, ignore_errors=True)
      os.close(lock)
      removed += 1
  return removed


def _remove_semaphores(note: pathlib.Path) -> None:
  """Removes those that a killed process noted."""
  if note.is_file():
    for name in note.read_text().split():
      if pathlib.Path(name).name == name and name.startswith("sem."):
        (_MEMORY / name).unlink(missing_ok=True)


def _locked(folder: pathlib.Path) -> int:
  """A descriptor that holds the folder's lock; `OSError` if another does."""
  number = os.open(folder, os.O_RDONLY)
  try:
    # The kernel drops the lock with the process, even after SIGKILL, so no file
    # with a process number can go stale.
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    os.close(number)
    raise
  return number


class Place:
  """A folder that batches pass through, as long as this process lives.

  Attributes:
    path: of the folder.
  """

  def __init__(self):
    """Makes it."""
    # --- Made, locked and still there: another process may have removed it
    # between the two, and then a new one is made.
    while True:
      self.path = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_top()))
      # Another start may take it for a leftover before it is locked.
      with contextlib.suppress(OSError):
        self._lock = _locked(self.path)
        if self.path.exists():
          return
        os.close(self._lock)

  def note_semaphores(self) -> None:
    """Writes down which semaphores of Python's queues are this process's.

    They are files in memory too, whose names outlive a process that is killed
    together with Python's tracker of them.
    """
    with contextlib.suppress(OSError):  # on Linux alone
      mapped = pathlib.Path("/proc/self/maps").read_text().splitlines()
      # The C library links them to their names after it has mapped them, so it
      # is by the inode that the two are known to be the same.
      inodes = {x.split()[4] for x in mapped if f"{_MEMORY}/sem." in x}
      names = [
        path.name
        for path in _MEMORY.glob("sem.*")
        if str(path.stat().st_ino) in inodes
      ]
      (self.path / _SEMAPHORES).write_text("\n".join(names))

  def close(self) -> None:
    """Removes it, with whatever was not taken; mapped arrays stay."""
    shutil.rmtree(self.path, ignore_errors=True)
    os.close(self._lock)


@dataclasses.dataclass(frozen=True)
class Passed:
  """A batch on its way.

  Attributes:
    file: that holds it.
    arrays: for each name the type, the shape and where its bytes begin.
  """

  file: str
  arrays: Mapping[str, tuple[str, tuple[int, ...], int]]

  def take(self) -> dict[str, np.ndarray]:
    """The batch, in the parent; once."""
    path = pathlib.Path(self.file)
    with path.open("r+b") as file:
      # The name goes at once. The memory stays until the last array that is
      # mapped from it is collected.
      path.unlink()
      memory = mmap.mmap(file.fileno(), 0)
    return {
      name: np.ndarray(shape, kind, memory, offset)
      for name, (kind, shape, offset) in self.arrays.items()
    }


def put(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> Passed:
  """Writes a batch, in a worker.

  Raises:
    OSError: if the memory is full.
  """
  # Written under a name that no other worker has.
  path, arrays = folder / uuid.uuid4().hex, {}
  try:
    with path.open("wb") as file:
      for name, array in batch.items():
        # Padding to the next multiple: -n % a.
        file.seek(-file.tell() % _ALIGN, os.SEEK_CUR)
        arrays[name] = (array.dtype.str, array.shape, file.tell())
        file.write(np.ascontiguousarray(array).data)
      file.seek(-file.tell() % _ALIGN, os.SEEK_CUR)
      file.write(b"\0")  # no empty file can be mapped
  except OSError as error:
    # Half a batch is of no use to anyone.
    path.unlink(missing_ok=True)
    if error.errno != errno.ENOSPC:
      raise
    size = sum(array.nbytes for array in batch.values()) >> 20
    raise OSError(
      errno.ENOSPC,
      f"no room in {folder.parent} for a batch of {size} MB: lower "
      "data.num_workers or data.prefetch_batches, or give it more memory "
      "(docker: --shm-size)",
    ) from error
  return Passed(str(path), arrays)
