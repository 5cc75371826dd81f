"""scikit-learn's handwritten digits: a small set that needs no network."""

from __future__ import annotations

import os

import numpy as np

from mobilevit_jax.data import examples

_NUM_TEST = 360


class ArraySource:
  """Decoded images of one class each, in memory."""

  def __init__(
    self,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
  ):
    """`images` are uint8 [n, h, w, 3], `labels` int [n]."""
    self.name = name
    self.class_names = class_names
    self._images = images
    self._labels = labels

  def __len__(self) -> int:
    """Number of images."""
    return len(self._labels)

  def __getitem__(self, index: int) -> examples.Example:
    """The image of that number, from 0."""
    target = {"label": int(self._labels[index])}
    name = f"{self.name}#{index}"
    return examples.Example(self._images[index], target, index, name)

  def labels(self) -> np.ndarray:
    """The class of every image."""
    return self._labels

  def place(self, index: int) -> tuple[str, int]:
    """The set, and the image's number in it."""
    return self.name, index


def open_split(
  data_dir: str | os.PathLike[str] | None, split: str
) -> ArraySource:
  """scikit-learn's 1,797 handwritten digits, uint8 [8, 8, 3].

  Args:
    data_dir: not used; the images come with scikit-learn.
    split: `test`, the last 360 of `numpy.random.default_rng(0)
      .permutation(1797)`, or `train`, the other 1,437.

  Returns:
    The source.

  Raises:
    ValueError: if there is no such split.
  """
  del data_dir
  if split not in ("train", "test"):
    raise ValueError(f"split={split!r} must be 'train' or 'test' for digits")
  # Imported late: scikit-learn takes a second, and only digits needs it.
  from sklearn import datasets

  images, labels = datasets.load_digits(return_X_y=True)
  # A fixed permutation: the set is sorted by nothing, but its writers follow
  # each other.
  order = np.random.default_rng(0).permutation(len(labels))
  cut = len(labels) - _NUM_TEST
  ids = order[:cut] if split == "train" else order[cut:]
  # The scans are counts from 0 to 16.
  grey = np.round(images[ids] * (255 / 16)).astype(np.uint8)
  pixels = np.repeat(grey.reshape(-1, 8, 8, 1), 3, axis=-1)
  names = tuple(str(digit) for digit in range(10))
  return ArraySource(f"digits/{split}", pixels, labels[ids], names)
