"""What becomes of broken images: `data.on_bad_image`.

With "error" they stop the run. With "replace" another image of the set stands
in for one, chosen by the broken one's id alone: no seed, host, worker or
restart changes it. Storage that fails stops the run in either case.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import itertools

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data import transforms

POLICIES = ("error", "replace")

# A set in which sixteen random images are all broken has another problem.
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
    example: with pixels; of another id, if it stands in for a broken one.
    error: what was wrong with the one asked for; empty if nothing.
  """

  example: examples.Example
  error: str = ""


def load(
  source: examples.Source,
  transform: transforms.Transform,
  example_id: int,
  *,
  replace: bool,
) -> Loaded:
  """Reads and decodes an example, or one that stands in for it.

  Args:
    source: the examples.
    transform: that decodes them.
    example_id: the one to load.
    replace: whether another may stand in for it.

  Raises:
    examples.ImageError: if it is broken, and so are all that might replace it.
    examples.StorageError: if one can't be read.
  """
  reason = ""
  # Replacements are lazy: no draw is made for a sound image.
  candidates = _candidates(example_id, len(source)) if replace else []
  for candidate in itertools.chain([example_id], candidates):
    try:
      return Loaded(transform.decode(source[candidate]), reason)
    # A failing disk is no property of an image: replacing it would hide it.
    except examples.StorageError:
      raise
    except examples.ImageError as error:
      if not replace:
        raise
      # The first reason is the one that tells what is wrong with the image
      # asked for.
      reason = reason or str(error)
  raise examples.ImageError(
    f"{reason}; and so are the {_TRIES} images that might replace it"
  )


def _candidates(example_id: int, num_examples: int) -> Iterator[int]:
  # A stream keyed by the image's id alone.
  bits = np.random.Philox(key=_KEY, counter=[0, example_id, 0, 0])
  draws = np.random.Generator(bits).integers(num_examples, size=_TRIES)
  return map(int, draws)
