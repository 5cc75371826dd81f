"""Images as a net that is exported sees them: of files, of a run's own set."""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data import sources
from mobilevit_jax.data import transforms
from mobilevit_jax.data.sources import files
from mobilevit_jax.weights.source import FoundWeights

# A folder may hold a million; these are enough to see an error, and to
# calibrate on.
MAX_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class View:
  """What is done to an image before a net of one size sees it.

  Attributes:
    transform: of the net's task; its evaluation counts.
    size: image side, in pixels.
  """

  transform: Any  # a `transforms.Transform` that is `Portable`
  size: int

  def preprocessing(self) -> dict[str, Any]:
    """See `transforms.Portable`."""
    assert isinstance(self.transform, transforms.Portable)
    return self.transform.preprocessing(self.size)

  def of_source(self, source: examples.Source) -> np.ndarray:
    """uint8 `[n, size, size, 3]` of its examples.

    Of more than `MAX_IMAGES`, so many, evenly spread.

    Raises:
      examples.ImageError: if one can't be read.
    """
    count = min(len(source), MAX_IMAGES)
    # Spread over the set: the first ones of a folder are of one class.
    images = []
    for place in range(count):
      example = self.transform.decode(source[place * len(source) // count])
      found = self.transform.evaluate(example, self.size)
      images.append(np.asarray(found["images"]))
    return np.stack(images)

  def of_files(self, paths: Sequence[pathlib.Path]) -> np.ndarray:
    """The same of image files, and those in folders, by their sorted names.

    Raises:
      ValueError, OSError: if one can't be read, or there is none.
    """
    # (The source refuses what is no regular file.)
    return self.of_source(files.FileSource(files.find_images(paths)))


def training_source(found: FoundWeights) -> examples.Source:
  """The images that a run was trained on.

  Raises:
    ValueError: for weights that are no run of ours, or images that are gone.
  """
  if found.config is None:
    raise ValueError(
      f"{found.name} is no run of ours, whose training images are known; name "
      "some by --calibration_images"
    )
  data = found.config["data"]
  try:
    return sources.make_source(
      data["name"], data["train_split"], data_dir=data["dir"], prepare=False
    )
  except (ValueError, OSError) as error:
    raise ValueError(
      f"the run's training images can't be opened ({error}); name some by "
      "--calibration_images"
    ) from error
