"""Where images come from: random access to examples by number.

`SOURCES` names the kinds of set that we read ourselves; any other name is that
of a TensorFlow Datasets set (`tfds`).
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import os
from typing import Any

import numpy as np

from mobilevit_jax import config
from mobilevit_jax.data import examples
from mobilevit_jax.data.sources import boxes
from mobilevit_jax.data.sources import coco_masks
from mobilevit_jax.data.sources import digits
from mobilevit_jax.data.sources import folder
from mobilevit_jax.data.sources import masks

# A new kind of set is a row here; `open_split(data_dir, split)` is all that it
# has to have.
# Name: from the folder and the split to the source.
SOURCES: dict[str, Callable[..., examples.Source]] = {
  "digits": digits.open_split,
  "folder": folder.open_split,
  "coco_json": boxes.open_coco,
  "voc_folder": boxes.open_voc,
  "yolo_folder": boxes.open_yolo,
  "masks": masks.open_folder,
  "voc_masks": masks.open_voc,
  "ade20k": masks.open_ade20k,
  "coco_voc21": coco_masks.open_split,
  "pet_masks": masks.open_pets,
}

_FEW_SHOT_STREAM = 1  # apart from the seed's other draws


def make_source(
  name: str,
  split: str,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  prepare: bool = True,
) -> examples.Source:
  """Opens a data set.

  Args:
    name: a key of `SOURCES`, or a TFDS name, as `dataset[/config][:version]`.
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
  if name in SOURCES:
    return SOURCES[name](data_dir, split)
  own = ", ".join(SOURCES)
  config.need("tensorflow_datasets", "tfds", f"{name!r}, none of {own},")
  # Imported late: it takes seconds, and only TFDS sets need it.
  from mobilevit_jax.data.sources import tfds

  return tfds.open_split(name, split, data_dir=data_dir, prepare=prepare)


class Subset:
  """Some labelled examples of another source."""

  def __init__(self, source: Any, ids: np.ndarray, name: str):
    """`ids` are the numbers, in the order that they get here."""
    self.name = name
    self.class_names = source.class_names
    self._source, self._ids = source, ids

  def __len__(self) -> int:
    """Number of examples."""
    return len(self._ids)

  def __getitem__(self, index: int) -> examples.Example:
    """The example of that number, from 0."""
    example = self._source[int(self._ids[index])]
    # Ids count within the subset: the plan and the meter know of no other.
    return dataclasses.replace(example, id=index)

  def labels(self) -> np.ndarray:
    """The class of every example."""
    return self._source.labels()[self._ids]

  def place(self, index: int) -> tuple[str, int | None]:
    """The file of an example, and its record there where it has many."""
    return self._source.place(int(self._ids[index]))


def few_shot(
  source: examples.Source, count: int, *, seed: int
) -> examples.Labelled:
  """A source with at most `count` random examples of each class.

  Args:
    source: all examples, whose labels are read: for a TFDS set, every record.
    count: examples a class; a smaller class stays whole.
    seed: of the choice. A larger count adds examples to a smaller one's.

  Returns:
    The source, in the order of the whole.

  Raises:
    ValueError: if `count` is not an integer from 1, or the images of the
      source have no class each.
  """
  if isinstance(count, bool) or not isinstance(count, int) or count < 1:
    raise ValueError(f"few_shot={count!r} must be an integer from 1")
  if not isinstance(source, examples.Labelled):
    raise ValueError(f"few_shot={count} needs one class for each image")
  labels = source.labels()
  # One permutation for every count: more examples a class are a superset.
  order = np.random.default_rng([seed, _FEW_SHOT_STREAM]).permutation(
    len(labels)
  )
  chosen = [
    order[labels[order] == label][:count] for label in np.unique(labels)
  ]
  # Back in the order of the whole, so that files are read in order.
  ids = np.sort(np.concatenate(chosen))
  return Subset(source, ids, f"{source.name}, {count} a class")
