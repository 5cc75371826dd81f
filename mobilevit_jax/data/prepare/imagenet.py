"""ImageNet from its official archives, file by file.

TFDS reads the archives from their start, and sorts all records before it
writes the first file: what is interrupted starts over. Here the archives'
headers alone say which image belongs in which file; images are then read from
all over the archives, so these should be on a disk that is quick at that.
Records, their order and the files they are in are TFDS's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools
import hashlib
import io
import itertools
import json
import os
import tarfile
from typing import Any, NamedTuple

from etils import epath
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core import splits as tfds_splits
from tensorflow_datasets.core.utils import shard_utils
import tqdm

from mobilevit_jax.data.prepare import shards

_PROGRESS = "progress.json"


class _Member(NamedTuple):
  """An image in an archive, which may be in an archive in that one.

  Attributes:
    key: the image's file name, which TFDS sorts by (its hash).
    name: the file in the outer archive.
    offset: of the bytes that are read, in the outer archive's.
    length: their number: an image, or an archive of that image alone.
    size: bytes of the image.
  """

  key: str
  name: str
  offset: int
  length: int
  size: int


class _Archives:
  """Stands in for TFDS's download manager: an archive is its path."""

  def __init__(self, manual_dir: os.PathLike[str]):
    self.manual_dir = manual_dir

  def iter_archive(self, path: str) -> epath.Path:
    return epath.Path(path)


class _Split:
  """The images of one split, in TFDS's order."""

  def __init__(self, builder: Any, generator: Any):
    self.name = str(generator.name)
    self._builder = builder
    self._kwargs = {**generator.gen_kwargs}
    self._path: epath.Path = self._kwargs.pop("archive")
    info = builder.info.features.get_serialized_info()
    self._serializer = example_serializer.ExampleSerializer(info)
    hasher = hashing.Hasher(self.name)
    self.members = sorted(
      _members(self._path), key=lambda member: hasher.hash_key(member.key)
    )
    if not self.members:
      raise ValueError(f"{self._path} has no images")
    for one, other in itertools.pairwise(self.members):
      if one.key == other.key:
        raise ValueError(f"{self._path} has {one.key} twice")

  def records(self, begin: int, end: int) -> Iterator[bytes]:
    """The records of these images, made by TFDS."""
    with self._path.open("rb") as file:
      for member in self.members[begin:end]:
        file.seek(member.offset)
        data = file.read(member.length)
        if len(data) < member.length:
          raise OSError(f"{self._path} ends within {member.key}")
        # An iterator, as TFDS goes through it a second time.
        archive = iter([(member.name, io.BytesIO(data))])
        found = False
        for key, example in self._builder._generate_examples(
          archive, **self._kwargs
        ):
          if found or key != member.key:
            raise ValueError(f"{self._path}: {key} isn't {member.key}")
          found = True
          example = self._builder.info.features.encode_example(example)
          yield self._serializer.serialize_example(example)
        if not found:
          raise ValueError(f"{self._path}: TFDS takes no {member.key}")

  def boundaries(self, num_shards: int | None) -> Sequence[int]:
    """Where its files end, by TFDS's rule for records of such a size."""
    (first,) = self.records(0, 1)
    # A record is its image and some tens of bytes; the rule is coarse.
    extra = len(first) - self.members[0].size
    size = sum(member.size + extra for member in self.members)
    config = shard_utils.ShardConfig(num_shards=num_shards)
    count = len(self.members)
    return shard_utils.get_shard_boundaries(
      count, config.get_number_shards(size, count)
    )

  def digest(self) -> str:
    """Says whether it is the same archive."""
    digest = hashlib.sha256()
    for member in self.members:
      digest.update(repr(tuple(member)).encode())
    return digest.hexdigest()


def part_folder(target: epath.Path) -> epath.Path:
  """Where a version's files gather until all are there."""
  return target.with_name(f"incomplete.prepare_{target.name}")


def prepare(
  builder: Any, manual_dir: os.PathLike[str], num_shards: int | None
) -> None:
  """Prepares `imagenet2012`, going on where an earlier run was interrupted.

  Args:
    builder: TFDS's.
    manual_dir: the folder of the archives. A split without one is left out.
    num_shards: files for each split; by default as many as TFDS sees fit.

  Raises:
    AssertionError: if a split has fewer images than files.
    ValueError: if an archive is broken, or what an earlier run left is of
      other archives or another number of files.
    OSError: if another run is at work.
  """
  # Imported late: it takes seconds, and only preparation needs it.
  import tensorflow as tf

  target = epath.Path(builder.data_path)
  part = part_folder(target)
  with shards.only_run(part):
    builder.info.set_file_format("array_record", override=True)
    try:
      generators = builder._split_generators(_Archives(manual_dir))
    except (tarfile.TarError, tf.errors.OutOfRangeError) as error:
      raise ValueError(f"{manual_dir} has a broken archive: {error}") from error
    splits = [_Split(builder, generator) for generator in generators]
    ends = {split.name: [*split.boundaries(num_shards)] for split in splits}
    plan = {split.name: [split.digest(), ends[split.name]] for split in splits}
    progress = _Progress(part, plan)
    made: dict[str, list[shards.Shard]] = {
      split.name: [*_shards(builder, split, ends[split.name], part, progress)]
      for split in splits
    }
    shards.write_missing([s for found in made.values() for s in found])
    infos = [
      tfds_splits.SplitInfo(
        name=name,
        shard_lengths=[shard.length for shard in found],
        num_bytes=sum(progress.num_bytes[shard.path.name] for shard in found),
        filename_template=builder._get_filename_template(name),
      )
      for name, found in made.items()
    ]
    builder.info.set_splits(tfds_splits.SplitDict(infos))
    builder.info.download_size = 0
    builder.info.write_to_directory(part)
    part.rename(target)
    (target / _PROGRESS).unlink()


class _Progress:
  """What the files are made from, and the bytes of records in each.

  Kept on disk: a run that goes on neither mixes archives nor reads what is
  finished.
  """

  def __init__(self, folder: epath.Path, plan: dict[str, Any]):
    self._path, self._plan = folder / _PROGRESS, plan
    self.num_bytes: dict[str, int] = {}
    if not self._path.exists():
      self._save()
      return
    saved = json.loads(self._path.read_text())
    if saved["plan"] != plan:
      raise ValueError(
        f"{folder} was begun with other archives or another --num_shards; "
        "go on with those, or remove it"
      )
    self.num_bytes = saved["num_bytes"]

  def add(self, name: str, num_bytes: int) -> None:
    """Notes a file that is about to get its name."""
    self.num_bytes[name] = num_bytes
    self._save()

  def _save(self) -> None:
    new = self._path.with_name(f"{_PROGRESS}.part")
    state = {"plan": self._plan, "num_bytes": self.num_bytes}
    new.write_text(json.dumps(state))
    new.replace(self._path)


def _shards(
  builder: Any,
  split: _Split,
  ends: Sequence[int],
  part: epath.Path,
  progress: _Progress,
) -> Iterator[shards.Shard]:
  template = builder._get_filename_template(split.name)
  for index, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
    at = {"shard_index": index, "num_shards": len(ends)}
    path = part / template.sharded_filepath(**at).name
    write = functools.partial(_write, split, begin, end, path, progress)
    yield shards.Shard(split.name, path, end - begin, write)


def _write(
  split: _Split, begin: int, end: int, path: epath.Path, progress: _Progress
) -> None:
  num_bytes = 0
  with shards.new_file(path) as writer:
    for record in split.records(begin, end):
      writer.write(record)
      num_bytes += len(record)
    progress.add(path.name, num_bytes)


def _members(path: epath.Path) -> Iterator[_Member]:
  """The images by the archive's headers."""
  end = 0
  try:
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
      for outer in tqdm.tqdm(tar, desc=f"index of {path.name}", mininterval=1):
        end = _end(outer)
        if not outer.isreg():
          continue
        start, name = outer.offset_data, os.path.normpath(outer.name)
        if not name.endswith(".tar"):
          yield _Member(name, name, start, outer.size, outer.size)
          continue
        with tarfile.open(fileobj=tar.extractfile(outer), mode="r:") as inner:
          for image in inner:
            if image.isreg():
              key = os.path.normpath(image.name)
              begin, length = start + image.offset, _end(image) - image.offset
              yield _Member(key, name, begin, length, image.size)
      # A download that stopped between two files looks whole to `tarfile`.
      file.seek(end)
      if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")
  except tarfile.TarError as error:
    raise ValueError(f"{path} is a broken archive: {error}") from error


def _end(member: tarfile.TarInfo) -> int:
  """Where the next file's header is."""
  blocks = -(-member.size // tarfile.BLOCKSIZE)
  return member.offset_data + blocks * tarfile.BLOCKSIZE
