"""What becomes of broken images: `data.on_bad_image`.

With "error" they stop the run. With "replace" another image of the set stands
in for one, chosen by the broken one's id alone: no seed, host, worker or
restart changes it. Storage that fails stops the run in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
import json

from etils import epath
import numpy as np

from mobilevit_jax import files
from mobilevit_jax.data import augment
from mobilevit_jax.data import examples

POLICIES = ("error", "replace")

_TRIES = 16
# Any number will do, but it has to stay the same forever.
_KEY = 0x1BAD1


def check_policy(on_bad_image: str) -> None:
  """`ValueError` unless it is one of `POLICIES`."""
  if on_bad_image not in POLICIES:
    raise ValueError(
      f"on_bad_image={on_bad_image!r} must be one of {', '.join(POLICIES)}"
    )


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A decoded example.

  Attributes:
    pixels: uint8 [h, w, 3].
    label: class, from 0.
    id: of the example that they are of, which may be a replacement.
    error: what was wrong with the one asked for; empty if nothing.
  """

  pixels: np.ndarray
  label: int
  id: int
  error: str = ""


def load(source: examples.Source, example_id: int, *, replace: bool) -> Loaded:
  """Reads and decodes an example, or one that stands in for it.

  Args:
    source: the images.
    example_id: the one to load.
    replace: whether another may stand in for it.

  Raises:
    examples.ImageError: if it is broken, and so are all that might replace it.
    examples.StorageError: if one can't be read.
  """
  try:
    return _decoded(source, example_id)
  except examples.StorageError:
    raise
  except examples.ImageError as error:
    if not replace:
      raise
    reason = str(error)
  for other in _candidates(example_id, len(source)):
    try:
      return dataclasses.replace(_decoded(source, other), error=reason)
    except examples.StorageError:
      raise
    except examples.ImageError:
      continue
  raise examples.ImageError(
    f"{reason}; and so are the {_TRIES} images that might replace it"
  )


def _decoded(source: examples.Source, example_id: int) -> Loaded:
  example = source[example_id]
  pixels = augment.decode(example.image, example.name)
  return Loaded(pixels, example.label, example_id)


def _candidates(example_id: int, num_examples: int) -> Iterator[int]:
  bits = np.random.Philox(key=_KEY, counter=[0, example_id, 0, 0])
  draws = np.random.Generator(bits).integers(num_examples, size=_TRIES)
  return map(int, draws)


class Report:
  """Counts the images that were replaced, and lists them in a file.

  The file has a JSON line for each broken image, by id: its `id`, `file`,
  `record` (null where a file is one image), `error` and `replacement`, an id.

  Attributes:
    count: how often an image was replaced, in batches that were used.
  """

  def __init__(
    self,
    source: examples.Source,
    path: epath.Path | None,
    gather: Callable[[np.ndarray], np.ndarray],
    count: int = 0,
  ):
    """Goes on where an earlier run stopped.

    Args:
      source: the images.
      path: the file, which may exist; None on all processes but one.
      gather: from the ids of this process to those of all processes.
      count: so far.
    """
    self.count = count
    self._source, self._path, self._gather = source, path, gather
    self._new: list[int] | None = None
    lines: list[str] = []
    if path is not None and path.exists():
      lines = path.read_text().splitlines()
    self._lines = {int(json.loads(line)["id"]): line for line in lines}

  def add(self, bad_ids: np.ndarray | None) -> None:
    """Takes a batch's `bad_ids`: -1 where an image is fine."""
    if bad_ids is not None:
      self._new = (self._new or []) + bad_ids[bad_ids >= 0].tolist()

  def update(self) -> int:
    """Counts and lists what was added by all processes, which all call it."""
    if self._new is None:  # on all processes alike
      return self.count
    ids = self._gather(np.array(self._new, np.int32))
    self._new = None
    self.count += len(ids)
    unlisted = {*ids.tolist()} - self._lines.keys()
    if self._path is not None and unlisted:
      self._lines |= {index: self._line(index) for index in unlisted}
      lines = [self._lines[index] + "\n" for index in sorted(self._lines)]
      files.write_text(self._path, "".join(lines))
    return self.count

  def _line(self, example_id: int) -> str:
    # What stands in for an image depends on its id alone: so ids are all that
    # workers and processes need to pass on.
    loaded = load(self._source, example_id, replace=True)
    file, record = self._source.place(example_id)
    fields = {"id": example_id, "file": file, "record": record}
    return json.dumps(
      fields | {"error": loaded.error, "replacement": loaded.id}
    )
