"""What a data source gives: labelled images, by number."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


class ImageError(ValueError):
  """An image that cannot be used; the message names the example."""


class StorageError(ImageError):
  """An image that cannot be read just now, though it may be fine."""


@dataclasses.dataclass(frozen=True)
class Example:
  """One labelled image.

  Attributes:
    image: the encoded file, or uint8 pixels [h, w, 3] in RGB order.
    label: class, from 0.
    id: the example's number in its source.
    name: what a person would find it by, for error messages.
  """

  image: bytes | np.ndarray
  label: int
  id: int
  name: str


class Source(Protocol):
  """Random access to examples; may be pickled and read by many threads."""

  name: str
  class_names: tuple[str, ...]

  @property
  def num_classes(self) -> int:
    """Number of classes."""
    ...

  def __len__(self) -> int:
    """Number of examples."""
    ...

  def __getitem__(self, index: int) -> Example:
    """The example of that number, from 0; `ImageError` if it is broken."""
    ...

  def labels(self) -> np.ndarray:
    """The class of every example, int [len(self)]."""
    ...

  def place(self, index: int) -> tuple[str, int | None]:
    """The file of an example, and its record there where it has many."""
    ...
