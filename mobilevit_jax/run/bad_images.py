"""What a run tells of the broken images that it replaced."""

from collections.abc import Callable
import contextlib
import json

from etils import epath
import numpy as np

from mobilevit_jax import files
from mobilevit_jax.data import bad_images
from mobilevit_jax.data import examples
from mobilevit_jax.data import transforms


class Ledger:
  """Counts the images that were replaced, and lists them in a file.

  The file has a JSON line for each broken image, by id: its `id`, `file`,
  `record` (null where a file is one image), `error` and `replacement`, an id.

  Attributes:
    count: how often an image was replaced, in batches that were used.
  """

  def __init__(
    self,
    source: examples.Source,
    transform: transforms.Transform,
    path: epath.Path | None,
    gather: Callable[[np.ndarray], np.ndarray],
    count: int = 0,
  ):
    """Goes on where an earlier run stopped.

    Args:
      source: the examples.
      transform: that decodes them.
      path: the file, which may exist; None on all processes but one.
      gather: from the ids of this process to those of all processes.
      count: so far.
    """
    self.count = count
    self._source, self._transform = source, transform
    self._path, self._gather = path, gather
    self._new: list[int] | None = None
    self._lines: dict[int, str] = {}
    for line in [] if path is None else files.read_lines(path):
      # What is damaged is found again, with the image.
      # A line that can't be parsed is dropped: the file is written anew anyway.
      with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        self._lines[int(json.loads(line)["id"])] = line

  def add(self, bad_ids: np.ndarray | None) -> None:
    """Takes a batch's `bad_ids`: -1 where an image is fine."""
    if bad_ids is not None:
      self._new = (self._new or []) + bad_ids[bad_ids >= 0].tolist()

  def update(self) -> int:
    """Counts and lists what was added by all processes, which all call it."""
    if self._new is None:  # on all processes alike
      return self.count
    # The same ids in all processes, so that the count is the same too.
    ids = self._gather(np.array(self._new, np.int32))
    self._new = None
    self.count += len(ids)
    # An image is broken in every epoch, but listed once.
    unlisted = {*ids.tolist()} - self._lines.keys()
    if self._path is not None and unlisted:
      self._lines |= {index: self._line(index) for index in unlisted}
      lines = [self._lines[index] + "\n" for index in sorted(self._lines)]
      files.write_text(self._path, "".join(lines))
    return self.count

  def _line(self, example_id: int) -> str:
    # What stands in for an image depends on its id alone: so ids are all that
    # workers and processes need to pass on.
    loaded = bad_images.load(
      self._source, self._transform, example_id, replace=True
    )
    file, record = self._source.place(example_id)
    fields = {"id": example_id, "file": file, "record": record}
    return json.dumps(
      fields | {"error": loaded.error, "replacement": loaded.example.id}
    )
