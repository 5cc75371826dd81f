"""Downloading a TFDS set and writing it as ArrayRecord files.

A set is written to a folder of another name, which gets its own at the end: a
version's folder is there in whole, or not at all. ImageNet goes on where a
killed run stopped (`imagenet`). What TFDS itself left of other sets can't
be gone on with, as it gives each run another folder; downloads can.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

from mobilevit_jax.data.prepare import imagenet

FILE_FORMAT = "array_record"
INFO_FILE = "dataset_info.json"
_IMAGENET_TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def check_features(name: str, features: Any) -> None:
  """Wants one image and one class: detection and the like have others."""
  wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
  for key, kind in wanted.items():
    if key not in features or not isinstance(features[key], kind):
      raise ValueError(
        f"name={name!r} must be a set of images with one class each, in the "
        "features 'image' (Image) and 'label' (ClassLabel); it has "
        f"{', '.join(features)}"
      )


def prepare_set(
  name: str,
  builder: Any,
  *,
  manual_dir: os.PathLike[str] | None = None,
  num_shards: int | None = None,
) -> None:
  """Prepares a data set.

  Args:
    name: what the data set was asked for as, for errors.
    builder: see `sources.tfds.make_builder`.
    manual_dir: what a person had to download; by default TFDS's own choice.
    num_shards: files for each split; by default as many as TFDS sees fit.

  Raises:
    ValueError: if something has to be downloaded by hand first, or something
      else is in the way.
    OSError: if the disk has too little space, or another run is at work.
  """
  target = epath.Path(builder.data_path)
  if target.exists():
    # TFDS would work for hours, and then fail to give its folder that name.
    raise ValueError(
      f"{target} has no {INFO_FILE}, so it is no prepared set, and in the way "
      "of one; remove or rename it"
    )
  if manual_dir is None:
    manual_dir = epath.Path(builder.data_dir_root) / "downloads" / "manual"
  # TFDS refuses to prepare old versions.
  current = builder.version == builder.canonical_version
  try:
    if builder.name == "imagenet2012" and current:
      archives = _imagenet_archives(name, manual_dir)
      part = imagenet.part_folder(target)
      # Records are the archives' files as they are.
      needed = sum(path.stat().length for path in archives)
      check_space(target, needed - (_size(part) if part.exists() else 0))
      imagenet.prepare(builder, manual_dir, num_shards)
      return
    config = tfds.download.DownloadConfig(
      manual_dir=manual_dir, num_shards=num_shards
    )
    builder.download_and_prepare(
      file_format=FILE_FORMAT, download_config=config
    )
  except AssertionError as error:
    # How TFDS reports files that a person has to download.
    raise ValueError(f"name={name!r} can't be prepared: {error}") from error


def _imagenet_archives(
  name: str, manual_dir: os.PathLike[str]
) -> list[epath.Path]:
  """Wants both of ImageNet's: TFDS would leave a split out for good."""
  paths = [epath.Path(manual_dir) / tar for tar in _IMAGENET_TARS]
  if missing := [path.name for path in paths if not path.exists()]:
    raise ValueError(
      f"name={name!r} is prepared from the official archives, "
      f"{' and '.join(_IMAGENET_TARS)} (https://image-net.org/download), "
      f"which must be in {manual_dir}; missing: {', '.join(missing)}"
    )
  return paths


def check_space(path: os.PathLike[str], needed: int) -> None:
  """`OSError` unless there are so many bytes for a folder that may not exist.

  What isn't on a disk (`gs://`) has space for everything.
  """
  if "://" in os.fspath(path):
    return
  existing = pathlib.Path(path).expanduser().absolute()
  while not existing.exists():
    existing = existing.parent
  free = shutil.disk_usage(existing).free
  if free < needed:
    raise OSError(
      f"{os.fspath(path)} needs {gigabytes(needed)}, and {existing} has "
      f"{gigabytes(free)} free: make room, or give another --data_dir"
    )


def gigabytes(size: int) -> str:
  """Bytes for people, and in full."""
  return f"{size / 1e9:.1f} GB ({size:,} bytes)"


def leftovers(data_path: os.PathLike[str]) -> list[tuple[epath.Path, int]]:
  """What killed runs left beside a version's folder, and its bytes.

  A run that is at work just now has such a folder too. Folders that the next
  run goes on with (`incomplete.prepare_`, `incomplete.convert_`) are none.
  """
  path = epath.Path(data_path)
  if not path.parent.exists():
    return []
  name = re.compile(rf"incomplete\.[A-Z0-9]{{6}}_{re.escape(path.name)}")
  found = [f for f in path.parent.iterdir() if name.fullmatch(f.name)]
  return [(folder, _size(folder)) for folder in sorted(found)]


def _size(path: epath.Path) -> int:
  if path.is_dir():
    return sum(map(_size, path.iterdir()))
  return path.stat().length
