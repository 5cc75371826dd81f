"""From an example to arrays of fixed shapes: one module a task, NumPy alone.

The workers that load batches import this half of a task; the other half, with
its loss and metric, is in `mobilevit_jax.tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mobilevit_jax.data import examples

# Spec, Size and Arrays are plain values, so that a transform needs no import of
# ours to be written.
# Of an image, in pixels: one side for a square, or height and width.
Size = int | tuple[int, int]
# Of one example: name to shape and type.
Spec = dict[str, tuple[tuple[int, ...], type[np.generic]]]
# Name to an array, or to a number for one of shape [].
Arrays = Mapping[str, np.typing.ArrayLike]


class Transform(Protocol):
  """What is done to an example before it is a row of a batch.

  Sizes are sides of squares in pixels; of `Shaped` ones also shapes. It may be
  pickled, and called by many threads at a time.
  """

  @property
  def max_pixels(self) -> int:
    """The most that an image may have to be decoded."""
    ...

  def spec(self, size: Any, *, train: bool) -> Spec:
    """Shapes and types of what `train` or `evaluate` give, for a `Size`.

    The batches' buffers, their padding and what is compiled follow from it.
    """
    ...

  def decode(self, example: examples.Example) -> examples.Example:
    """The example with pixels, and what else of it was encoded.

    Raises:
      examples.ImageError: if it is broken. What passes here must not fail in
        `train`, since another example may be loaded in its place.
    """
    ...

  def train(
    self, example: examples.Example, size: int, rng: np.random.Generator
  ) -> Arrays:
    """A decoded example, augmented; `rng` is of this example and epoch."""
    ...

  def evaluate(self, example: examples.Example, size: Any) -> Arrays:
    """A decoded example as evaluation and prediction see it."""
    ...


@runtime_checkable
class Shaped(Transform, Protocol):
  """A transform whose evaluation leaves images their aspect.

  `spec` and `evaluate` then get one of the shapes in place of a size.
  """

  def shape(self, example: examples.Example, size: int) -> tuple[int, int]:
    """Height and width of what `evaluate` makes of an example as it is read.

    Raises:
      examples.ImageError: if it is broken.
    """
    ...

  @property
  def keeps_aspect(self) -> bool:
    """Whether shapes differ at all: it may be a setting."""
    ...


@runtime_checkable
class Portable(Protocol):
  """A transform whose evaluation can be repeated on a phone or in a browser."""

  def preprocessing(self, size: int) -> dict[str, Any]:
    """What is done to an image before a net of fixed `size` sees it.

    As JSON's values, for the metadata of exported files; docs/on_device.md
    says what they mean.
    """
    ...
