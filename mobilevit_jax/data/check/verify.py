"""Looking for what is broken in a prepared TFDS set."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import dataclasses
import os

from array_record.python import array_record_data_source
from etils import epath
import numpy as np
import tensorflow_datasets as tfds
import tqdm

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data.prepare import download
from mobilevit_jax.data.sources import tfds as tfds_source


@dataclasses.dataclass(frozen=True)
class Verified:
  """What was found in a split.

  Attributes:
    split: its name.
    num_images: that it should have.
    num_files: that it should have.
    num_decoded: images that were read and decoded, or tried.
    faults: a line for each file or record that is broken.
  """

  split: str
  num_images: int
  num_files: int
  num_decoded: int
  faults: list[str]


def verify(
  path: os.PathLike[str] | str, *, sample: int | None = None
) -> Iterator[Verified]:
  """Counts the records of a prepared set, and decodes images.

  Args:
    path: the version's folder, such as `DIR/imagenet2012/5.1.0`.
    sample: images of each split to decode, drawn at random but always the
      same; None for all.

  Yields:
    What was found, split by split.

  Raises:
    ValueError: if that is no prepared set of labelled images in ArrayRecord
      files.
  """
  info = tfds.builder_from_directory(download.check_folder(path)).info
  for name, split in info.splits.items():
    source = tfds_source.open_prepared(info.name, name, path)
    files = zip(split.filepaths, split.shard_lengths, strict=True)
    faults = {file.name: _count(file, length) for file, length in files}
    count = len(source) if sample is None else min(sample, len(source))
    # The same images at each call, so that two runs can be compared.
    drawn = np.random.default_rng(0).choice(len(source), count, replace=False)
    # One line for a broken file, not one for each of its records.
    ids = [i for i in sorted(drawn.tolist()) if not faults[source.place(i)[0]]]
    found = [fault for fault in faults.values() if fault]
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      # `s=source`: a closure would see the next split's source by the time it
      # runs.
      decoded = pool.map(lambda index, s=source: _decode(s, index), ids)
      bar = tqdm.tqdm(decoded, name, len(ids), unit=" images", mininterval=1)
      found += [fault for fault in bar if fault]
    yield Verified(name, split.num_examples, split.num_shards, len(ids), found)


def _count(file: epath.Path, length: int) -> str:
  """What is wrong with a file as a whole, or nothing."""
  if not file.exists():
    return f"{file} is missing"
  try:
    count = len(array_record_data_source.ArrayRecordDataSource(os.fspath(file)))
  except RuntimeError as error:
    return f"{file} can't be read: {' '.join(str(error).split())}"
  # The number of records is in the file's footer: no record is read for it.
  if count == length:
    return ""
  return f"{file} has {count} records; {download.INFO_FILE} says {length}"


def _decode(source: tfds_source.TfdsSource, index: int) -> str:
  """What is wrong with an image, or nothing."""
  try:
    augment.decode(source.read(index)["image"], source.locate(index))
  except examples.ImageError as error:
    return str(error)
  return ""
