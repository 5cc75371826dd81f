"""Writing a set's ArrayRecord files one by one, each whole or not at all.

They gather in a folder of another name; a run that is started again there
skips the files that it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import importlib
import os
import pathlib
from typing import Any

from etils import epath
import tqdm

# A compiled module, which type checkers can't see.
array_record: Any = importlib.import_module(
  "array_record.python.array_record_module"
)


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of a split, its number of records, and what writes it."""

  split: str
  path: epath.Path
  length: int
  write: Callable[[], None]


def write_missing(shards: Sequence[Shard]) -> None:
  """Writes the files that aren't there yet, and shows how far it is."""
  done = sum(shard.path.exists() for shard in shards)
  print(f"{len(shards)} files, {done} of them there already", flush=True)
  total = sum(shard.length for shard in shards)
  with tqdm.tqdm(total=total, unit=" images", mininterval=1) as bar:
    for number, shard in enumerate(shards, start=1):
      bar.set_description(f"{shard.split}, file {number} of {len(shards)}")
      if not shard.path.exists():
        shard.write()
      bar.update(shard.length)


@contextlib.contextmanager
def new_file(path: epath.Path) -> Iterator[Any]:
  """Gives a writer; the file has its name only if the block ends well."""
  unfinished = path.with_name(f"{path.name}.part")
  # What TFDS itself writes: a record can be read without its neighbours.
  writer = array_record.ArrayRecordWriter(os.fspath(unfinished), "group_size:1")
  try:
    yield writer
  finally:
    writer.close()
  unfinished.replace(path)


@contextlib.contextmanager
def only_run(folder: epath.Path) -> Iterator[None]:
  """Makes a folder; `OSError` if another run is at work in it.

  It goes again if the block leaves it empty.
  The kernel forgets a killed run's lock. Storage without locks (`gs://`, some
  network file systems) has no such check.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if "://" in os.fspath(folder):
    yield
    return
  handle = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise OSError(f"another run is at work in {folder}") from error
    except OSError:
      pass  # no locks here
    yield
  finally:
    with contextlib.suppress(OSError):
      pathlib.Path(folder).rmdir()  # fails where there is something in it
    os.close(handle)
