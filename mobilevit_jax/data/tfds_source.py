"""TensorFlow Datasets as a random-access source.

Apart from `sources`, since importing `tensorflow_datasets` takes seconds that
other sources need not spend. Reading goes through ArrayRecord files and leaves
images encoded; TensorFlow is imported only while a data set is prepared.
"""

from __future__ import annotations

from collections.abc import Sequence
import difflib
import os
from typing import Any

import tensorflow_datasets as tfds

from mobilevit_jax.data import examples

_FILE_FORMAT = "array_record"
_IMAGENET_TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


class TfdsSource:
  """One split of a prepared data set."""

  def __init__(self, name: str, class_names: Sequence[str], records: Any):
    """See `open_split`; `records` is what `as_data_source` returns."""
    self.name = name
    self.class_names = tuple(class_names)
    self._records = records

  @property
  def num_classes(self) -> int:
    """Number of classes."""
    return len(self.class_names)

  def __len__(self) -> int:
    """Number of examples."""
    return len(self._records)

  def __getitem__(self, index: int) -> examples.Example:
    """The example of that number, from 0, its image still encoded."""
    record = self._records[index]
    name, label = f"{self.name}#{index}", int(record["label"])
    if label < 0:
      raise ValueError(
        f"split={self.name!r} must be labelled; {name} has no label"
      )
    return examples.Example(record["image"], label, index, name)


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
  builder = _make_builder(name, data_dir)
  _check_features(name, builder.info.features)
  if not builder.is_prepared():
    if not prepare:
      raise ValueError(
        f"name={name!r} must be prepared in {builder.data_path} first, by one "
        "process (another may be at it: wait for its end)"
      )
    _prepare(name, builder)
  # Unlike the builder made by name, this one also sees formats that were added
  # to the folder by conversion.
  reader: Any = tfds.builder_from_directory(builder.data_path)
  try:
    records = reader.as_data_source(
      split, decoders={"image": tfds.decode.SkipDecoding()}
    )
  except NotImplementedError as error:
    raise ValueError(_conversion_help(name, builder.data_path)) from error
  except ValueError as error:
    raise ValueError(f"split={split!r} of {name!r}: {error}") from error
  class_names = builder.info.features["label"].names
  return TfdsSource(f"tfds:{name}/{split}", class_names, records)


def _make_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
  where = None if data_dir is None else os.fspath(data_dir)
  try:
    return tfds.builder(name, data_dir=where)
  except tfds.core.DatasetNotFoundError as error:
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


def _check_features(name: str, features: Any) -> None:
  """Wants one image and one class: detection and the like have others."""
  wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
  for key, kind in wanted.items():
    if key not in features or not isinstance(features[key], kind):
      raise ValueError(
        f"name={name!r} must be a set of images with one class each, in the "
        "features 'image' (Image) and 'label' (ClassLabel); it has "
        f"{', '.join(features)}"
      )


def _prepare(name: str, builder: Any) -> None:
  if builder.name == "imagenet2012":
    # TFDS would go on with one of the two, and leave a split out for good.
    manual = builder.data_path.parents[1] / "downloads" / "manual"
    if missing := [
      tar for tar in _IMAGENET_TARS if not (manual / tar).exists()
    ]:
      raise ValueError(
        f"name={name!r} is prepared from the official archives, "
        f"{' and '.join(_IMAGENET_TARS)} (https://image-net.org/download), "
        f"which must be in {manual}; missing: {', '.join(missing)}"
      )
  try:
    builder.download_and_prepare(file_format=_FILE_FORMAT)
  except AssertionError as error:
    # How TFDS reports files that a person has to download.
    raise ValueError(f"name={name!r} can't be prepared: {error}") from error


def _conversion_help(name: str, path: os.PathLike[str]) -> str:
  return (
    f"name={name!r} must be {_FILE_FORMAT} files, which allow random access, "
    f"but {os.fspath(path)} holds others. Give another data_dir to prepare it "
    "anew, or convert it in place, in a Python environment of its own with "
    "tensorflow, tensorflow-datasets and apache-beam:\n"
    "  from tensorflow_datasets.scripts.cli import convert_format_utils\n"
    "  convert_format_utils.convert_dataset(\n"
    f'      out_dir=None, out_file_format="{_FILE_FORMAT}", num_workers=1,\n'
    f'      dataset_version_dir="{os.fspath(path)}")'
  )
