"""Where images come from: random access to (image, label) by number.

`make_source` knows three kinds: `digits`, a small set inside scikit-learn that
needs no network; `folder`, a folder of class sub-folders; and, by any other
name, a TensorFlow Datasets classification set (`tfds_source`).
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data.sources import folder

Example = examples.Example
Source = examples.Source

_NUM_TEST_DIGITS = 360
_FEW_SHOT_STREAM = 1  # apart from the seed's other draws


def make_source(
  name: str,
  split: str,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  prepare: bool = True,
) -> Source:
  """Opens a data set.

  Args:
    name: `digits`, `folder`, or a TFDS name, as `dataset[/config][:version]`.
    split: `train` or `test` for digits, `train` or `val` for a folder without
      split sub-folders, any split expression (`train[:90%]`) for TFDS.
    data_dir: the folder; for TFDS, where data sets are kept (by default
      `~/tensorflow_datasets` or `TFDS_DATA_DIR`).
    prepare: whether to download and prepare a TFDS data set that isn't there
      yet. Only one process of a run may do so.

  Returns:
    The source.

  Raises:
    ValueError: if there is no such data set, split or folder, or its contents
      can't be used.
  """
  if name == "digits":
    return digits(split)
  if name == "folder":
    if data_dir is None:
      raise ValueError("data_dir=None must be the folder to read")
    return folder.open_split(data_dir, split)
  # Imported late: it takes seconds, and only TFDS sets need it.
  from mobilevit_jax.data.sources import tfds as tfds_source

  return tfds_source.open_split(name, split, data_dir=data_dir, prepare=prepare)


class _ArraySource:
  """Decoded images in memory."""

  def __init__(
    self,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
  ):
    self.name = name
    self.class_names = class_names
    self._images = images
    self._labels = labels

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, index: int) -> Example:
    label = int(self._labels[index])
    return Example(self._images[index], label, index, f"{self.name}#{index}")

  def labels(self) -> np.ndarray:
    return self._labels

  def place(self, index: int) -> tuple[str, int]:
    return self.name, index


class _Subset:
  """Some examples of another source."""

  def __init__(self, source: Source, ids: np.ndarray, name: str):
    self.name = name
    self.class_names = source.class_names
    self._source, self._ids = source, ids

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return len(self._ids)

  def __getitem__(self, index: int) -> Example:
    example = self._source[int(self._ids[index])]
    return dataclasses.replace(example, id=index)

  def labels(self) -> np.ndarray:
    return self._source.labels()[self._ids]

  def place(self, index: int) -> tuple[str, int | None]:
    return self._source.place(int(self._ids[index]))


def few_shot(source: Source, count: int, *, seed: int) -> Source:
  """A source with at most `count` random examples of each class.

  Args:
    source: all examples, whose labels are read: for a TFDS set, every record.
    count: examples a class; a smaller class stays whole.
    seed: of the choice. A larger count adds examples to a smaller one's.

  Returns:
    The source, in the order of the whole.

  Raises:
    ValueError: if `count` is not an integer from 1.
  """
  if isinstance(count, bool) or not isinstance(count, int) or count < 1:
    raise ValueError(f"few_shot={count!r} must be an integer from 1")
  labels = source.labels()
  order = np.random.default_rng([seed, _FEW_SHOT_STREAM]).permutation(
    len(labels)
  )
  chosen = [
    order[labels[order] == label][:count] for label in np.unique(labels)
  ]
  ids = np.sort(np.concatenate(chosen))
  return _Subset(source, ids, f"{source.name}, {count} a class")


def digits(split: str) -> Source:
  """scikit-learn's 1,797 handwritten digits, uint8 [8, 8, 3].

  Args:
    split: `test`, the last 360 of `numpy.random.default_rng(0)
      .permutation(1797)`, or `train`, the other 1,437.

  Returns:
    The source.

  Raises:
    ValueError: if there is no such split.
  """
  if split not in ("train", "test"):
    raise ValueError(f"split={split!r} must be 'train' or 'test' for digits")
  # Imported late: scikit-learn takes a second, and only digits needs it.
  from sklearn import datasets

  images, labels = datasets.load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(len(labels))
  cut = len(labels) - _NUM_TEST_DIGITS
  ids = order[:cut] if split == "train" else order[cut:]
  # The scans are counts from 0 to 16.
  grey = np.round(images[ids] * (255 / 16)).astype(np.uint8)
  pixels = np.repeat(grey.reshape(-1, 8, 8, 1), 3, axis=-1)
  names = tuple(str(digit) for digit in range(10))
  return _ArraySource(f"digits/{split}", pixels, labels[ids], names)
