"""What a data source gives: images with what is known of them, by number."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mobilevit_jax import config


# Two errors, since they are treated differently: a broken image may be replaced
# by another one, while storage that fails stops the run.
class ImageError(config.UserError, ValueError):
  """An image that cannot be used; the message names the example."""


class StorageError(ImageError):
  """An image that cannot be read just now, though it may be fine."""


@dataclasses.dataclass(frozen=True)
class Example:
  """One image and its truth.

  Attributes:
    image: the encoded file, or uint8 pixels [h, w, 3] in RGB order.
    target: what is known of it, by name, as the task's transform wants it:
      a class, from 0, as `label`; empty for an image to be predicted.
    id: the example's number in its source.
    name: what a person would find it by, for error messages.
  """

  image: bytes | np.ndarray
  target: Mapping[str, Any]
  id: int
  name: str


class Source(Protocol):
  """Random access to examples; may be pickled and read by many threads."""

  name: str
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    """Number of examples."""
    ...

  def __getitem__(self, index: int) -> Example:
    """The example of that number, from 0; `ImageError` if it is broken."""
    ...

  def place(self, index: int) -> tuple[str, int | None]:
    """The file of an example, and its record there where it has many."""
    ...


@runtime_checkable
class Labelled(Source, Protocol):
  """A source of one class an image, which few-shot and the check need."""

  def labels(self) -> np.ndarray:
    """The class of every example, int [len(self)]."""
    ...


@runtime_checkable
class Masked(Source, Protocol):
  """A source with a class for each pixel, which meters and the check need.

  Its examples have the same as their target `mask`.
  """

  def mask(self, index: int) -> np.ndarray:
    """The truth, uint8 [h, w] at the image's size; 255 where it is ignored.

    Raises:
      ImageError: if it can't be read, or has what is no class.
    """
    ...


def located(source: Source, index: int) -> str:
  """What a person would find an example by: its file, and its record there."""
  file, record = source.place(index)
  return file if record is None else f"{file}#{record}"
