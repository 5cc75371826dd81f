"""TensorFlow Datasets as a random-access source.

Apart from `sources`, since importing `tensorflow_datasets` takes seconds that
other sources need not spend. Reading goes through ArrayRecord files and leaves
images encoded; TensorFlow is imported only while a data set is prepared
(`data.prepare`).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
import difflib
import itertools
import os
import pathlib
import re
import shlex
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mobilevit_jax.data import examples
from mobilevit_jax.data.boxes import Boxes
from mobilevit_jax.data.boxes import upright_size
from mobilevit_jax.data.prepare import download

_BROKEN_RECORD = re.compile(r"Corrupted .*; at byte \d+", re.DOTALL)


class TfdsSource:
  """One split of a prepared data set."""

  def __init__(
    self,
    name: str,
    class_names: Sequence[str],
    records: Any,
    files: Sequence[tuple[str, int, int]],
  ):
    """See `open_split`; `records` is what `as_data_source` returns.

    `files` are the name, the first record and the number of records of each
    file that the split takes, in order.
    """
    self.name = name
    self.class_names = tuple(class_names)
    self._records = records
    self._files = tuple(files)
    # Where each file's records begin among the split's.
    # `[0, take of file 0, take of files 0 and 1, ...]`, for `place`.
    takes = (take for _, _, take in self._files)
    self._starts = [0, *itertools.accumulate(takes)]

  def __len__(self) -> int:
    """Number of examples."""
    return len(self._records)

  def __getitem__(self, index: int) -> examples.Example:
    """The example of that number, from 0, its image still encoded."""
    record, name = self.read(index), self.locate(index)
    label = int(record["label"])
    if label < 0:
      raise examples.ImageError(
        f"split={self.name!r} must be labelled; {name} has no label"
      )
    return examples.Example(record["image"], {"label": label}, index, name)

  def labels(self) -> np.ndarray:
    """The class of every example; reads all records, some seconds a GB."""
    return np.array(
      [self[index].target["label"] for index in range(len(self))], np.int32
    )

  def read(self, index: int) -> dict[str, Any]:
    """All features of an example, its image still encoded.

    Raises:
      examples.ImageError: if it is broken, naming its file and record;
        `StorageError` if the file is missing or can't be read.
    """
    # ArrayRecord takes negative numbers from the end; ours have no such
    # meaning.
    if not 0 <= index < len(self):
      raise IndexError(f"{self.name} has {len(self)} examples, not #{index}")
    try:
      return self._records[index]
    except Exception as error:
      # Storage, checksum, parsing: types that have nothing in common.
      reason = " ".join(str(error).split()) or type(error).__name__
      where = self.locate(index)
      if _is_storage(error):
        raise examples.StorageError(
          f"{where}: can't be read: {reason}"
        ) from error
      raise examples.ImageError(f"{where}: broken record: {reason}") from error

  def locate(self, index: int) -> str:
    """Where an example is: its split and id, its file and record there."""
    file, record = self.place(index)
    return f"{self.name}#{index} ({file}, record {record})"

  def place(self, index: int) -> tuple[str, int]:
    """The file of an example, and its record there."""
    # The last file that begins at the index or before.
    place = bisect.bisect_right(self._starts, index) - 1
    file, skip, _ = self._files[place]
    return file, skip + index - self._starts[place]


class TfdsBoxSource(TfdsSource):
  """One split of a prepared data set of images with boxes."""

  def __getitem__(self, index: int) -> examples.Example:
    """The example of that number, from 0, its image still encoded."""
    record, name = self.read(index), self.locate(index)
    target = self._boxes(record, name).target()
    return examples.Example(record["image"], target, index, name)

  @property
  def category_ids(self) -> tuple[int, ...]:
    """Of the classes, from 1; TFDS keeps no ids of COCO's."""
    return tuple(range(1, len(self.class_names) + 1))

  def truth(self, index: int) -> Boxes:
    """What is in an image."""
    return self._boxes(self.read(index), self.locate(index))

  def image_id(self, index: int) -> int | str:
    """COCO's id of the image, or the name of its file."""
    record = self.read(index)
    # COCO's sets have the id as a feature, VOC's the file's name alone.
    if "image/id" in record:
      return int(record["image/id"])
    return pathlib.PurePath(record["image/filename"].decode()).stem

  def _boxes(self, record: dict[str, Any], name: str) -> Boxes:
    # By EXIF's orientation, as decoding turns the pixels too.
    height, width = upright_size(record["image"], name)
    objects = record["objects"]
    # TFDS: y0, x0, y1, x1 as parts of the image, to x0, y0, x1, y1 in pixels.
    corners = np.reshape(objects["bbox"], (-1, 4)).astype(np.float64)
    boxes = corners[:, [1, 0, 3, 2]] * (width, height, width, height)
    # VOC's own metric does not count what is hard to make out.
    crowd = objects.get("is_crowd", objects.get("is_difficult"))
    labels = np.asarray(objects["label"], np.int32)
    # COCO's area is that of the outline; without outlines it is the box's.
    area = objects.get("area", np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return Boxes(
      boxes,
      labels,
      np.zeros(len(labels), bool) if crowd is None else np.asarray(crowd, bool),
      np.asarray(area, np.float64),
    )

  def labels(self) -> np.ndarray:
    """There is no one class of an image."""
    raise ValueError(f"{self.name} has boxes, and no one class for each image")


def _is_storage(error: Exception) -> bool:
  """Whether the fault is the file's, or the disk's, not one record's.

  ArrayRecord reports everything alike, as `RuntimeError`. A record that fails
  its checksum is "Corrupted ...; at byte N"; an index that does goes on.
  """
  if isinstance(error, OSError):
    return True
  if not isinstance(error, RuntimeError):
    return False  # the record's parser
  # One broken record is left out; a broken index or file stops the run.
  return not _BROKEN_RECORD.fullmatch(str(error).strip())


def open_split(
  name: str,
  split: str,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  prepare: bool = True,
) -> TfdsSource:
  """Opens a split of a data set, preparing the set at its first use.

  Args:
    name: `dataset[/config][:version]`.
    split: any split expression, such as `train[:90%]`.
    data_dir: where data sets are kept; by default TFDS's own choice.
    prepare: whether to download and prepare what isn't there yet.

  Returns:
    The source.

  Raises:
    ValueError: if the data set, its version or its split does not exist, is
      not one of labelled images, or is not and can't be prepared.
  """
  # The builder by name knows the features, also of a set that isn't there.
  builder = make_builder(name, data_dir)
  download.check_features(name, builder.info.features)
  if not builder.is_prepared():
    if not prepare:
      raise ValueError(
        f"name={name!r} must be prepared in {builder.data_path} first, by one "
        "process (another may be at it: wait for its end)"
      )
    download.prepare_set(name, builder)
  return open_prepared(name, split, builder.data_path)


def open_prepared(
  name: str, split: str, path: os.PathLike[str] | str
) -> TfdsSource:
  """Opens a split of the data set that is prepared in a version's folder."""
  # Unlike the builder made by name, this one also sees formats that were added
  # to the folder by conversion.
  reader: Any = tfds.builder_from_directory(path)
  try:
    # Encoded images: decoding is ours, with OpenCV (see `data.augment`).
    records = reader.as_data_source(
      split, decoders={"image": tfds.decode.SkipDecoding()}
    )
  except NotImplementedError as error:
    raise ValueError(_conversion_help(name, reader)) from error
  except ValueError as error:
    raise ValueError(f"split={split!r} of {name!r}: {error}") from error
  features: Any = reader.info.features
  boxed = download.has_boxes(features)
  label = features["objects"].feature["label"] if boxed else features["label"]
  # Which files the split takes, and which records of each: an expression such
  # as `train[:90%]` may end within a file.
  files = [
    (pathlib.PurePath(part.filename).name, part.skip, part.take)
    for part in reader.info.splits[split].file_instructions
  ]
  # A set with boxes has its labels with them, one for each.
  kind = TfdsBoxSource if boxed else TfdsSource
  return kind(f"tfds:{name}/{split}", label.names, records, files)


def make_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
  """TFDS's builder of a data set; `ValueError` if there is none."""
  where = None if data_dir is None else os.fspath(data_dir)
  try:
    return tfds.builder(name, data_dir=where)
  except tfds.core.DatasetNotFoundError as error:
    # Misspelt: the closest names of all sets that TFDS has.
    known = ["digits", "folder"]
    known += tfds.list_builders(with_community_datasets=False)
    base = name.split("/")[0].split(":")[0]
    near = difflib.get_close_matches(base, sorted({*known}), n=3)
    raise ValueError(
      f"name={name!r} must be 'digits', 'folder' or a data set of TFDS"
      f"{', such as ' + ', '.join(near) if near else ''}"
    ) from error
  except (AssertionError, ValueError) as error:
    # TFDS names the configs or versions that exist.
    raise ValueError(f"name={name!r}: {error}") from error


def _conversion_help(name: str, reader: Any) -> str:
  """Says that a folder's files can't be used, and how to convert them."""
  path, info = os.fspath(reader.data_path), reader.info
  root = path.rstrip("/").removesuffix(f"/{info.full_name}")
  target = f"{root}-{download.FILE_FORMAT}"
  words = ("python", "-m", "mobilevit_jax.data", "convert", path)
  command = shlex.join([*words, f"--data_dir={target}"])
  return (
    f"name={name!r} must be {download.FILE_FORMAT} files, which allow random "
    f"access, but {path} holds others. Convert them, and use data_dir="
    f"{target!r} from then on:\n  {command}"
  )
