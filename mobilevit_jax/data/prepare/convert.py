"""From the TFRecord files of a prepared TFDS set to ArrayRecord files.

TFDS's own converter needs apache-beam, which downgrades protobuf and numpy.
Records are copied byte for byte, file by file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
from typing import Any

from etils import epath
import tensorflow_datasets as tfds
import tqdm

from mobilevit_jax import files
from mobilevit_jax.data.prepare import download

# A compiled module, which type checkers can't see.
_array_record: Any = importlib.import_module(
  "array_record.python.array_record_module"
)

_INFO = download.INFO_FILE
_FEATURES = "features.json"
# Names that make up paths; they come from a file.
_SAFE = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*")


def convert(source: str | os.PathLike[str], data_dir: str) -> epath.Path:
  """Writes a prepared set's records as ArrayRecord files.

  They gather in a folder `incomplete.convert_VERSION`, which gets its final
  name when all is there. Started again after an interruption, it keeps the
  files that are whole.

  Args:
    source: the version's folder, such as `DIR/imagenet2012/5.1.0`.
    data_dir: where the converted set goes, as `dataset[/config]/version`.

  Returns:
    The new version's folder.

  Raises:
    ValueError: if `source` is no prepared set of labelled images in TFRecord
      files, misses records, or the target exists.
    OSError: if the disk has too little space, or another run is at work.
  """
  # --- What is refused, before any file is written.
  source = download.check_folder(source, _FEATURES)
  # TFDS would import features of classes that aren't its own.
  json.loads((source / _FEATURES).read_text(), object_hook=_check_class)
  reader: Any = tfds.builder_from_directory(source)
  info = reader.info
  download.check_features(str(source), info.features)
  found = info.file_format.value
  if found != "tfrecord":
    raise ValueError(f"{source} must hold tfrecord files, not {found}")
  for name in (info.full_name, *info.splits):
    if not _SAFE.fullmatch(name):
      raise ValueError(f"{source}: {name!r} can't be part of a path")
  target = epath.Path(data_dir) / info.full_name
  # All or nothing: the version's folder appears by one renaming at the end.
  if target.exists():
    raise ValueError(f"{target} exists already; give another --data_dir")
  part = target.parent / f"incomplete.convert_{target.name}"
  shards = []
  for split in info.splits.values():
    name = f"{info.name}-{split.name}.{download.FILE_FORMAT}"
    for index, old in enumerate(split.filepaths):
      new = part / f"{name}-{index:05}-of-{split.num_shards:05}"
      # Only the last part: a template may come from anywhere.
      shards.append((source / old.name, new, split.shard_lengths[index]))
  if missing := [old for old, _, _ in shards if not old.exists()]:
    raise ValueError(f"{missing[0]} is missing: the set isn't whole")
  # --- What an earlier, interrupted run finished is kept.
  todo = [shard for shard in shards if not shard[1].exists()]
  download.check_space(part, sum(old.stat().length for old, _, _ in todo))
  done = len(shards) - len(todo)
  print(f"{len(shards)} files, {done} of them there already", flush=True)
  with download.only_run(part):
    for old, new, length in tqdm.tqdm(todo, unit=" files", mininterval=1):
      _convert_file(old, new, length)
    _copy_metadata(source, part)
    part.rename(target)
  return target


def _check_class(node: dict[str, Any]) -> None:
  kind = node.get("pythonClassName", "tensorflow_datasets.")
  if not str(kind).startswith("tensorflow_datasets."):
    # The set's features belong to TFDS; a name such as os.system must not be
    # imported from a file that was downloaded.
    raise ValueError(f"{_FEATURES}: {kind!r} is no class of TFDS")


def _convert_file(old: epath.Path, new: epath.Path, length: int) -> None:
  # Imported late: it takes seconds, and only conversion needs it.
  import tensorflow as tf

  count = 0
  with files.whole(new) as part:
    # What TFDS itself writes: a record can be read without its neighbours.
    writer = _array_record.ArrayRecordWriter(os.fspath(part), "group_size:1")
    with contextlib.closing(writer):
      records = tf.data.TFRecordDataset(os.fspath(old)).as_numpy_iterator()
      try:
        for record in records:
          writer.write(record)
          count += 1
      except tf.errors.DataLossError as error:
        raise ValueError(f"{old} is broken: {error.message}") from error
    if count != length:
      raise ValueError(
        f"{old} must hold {length} records, as {_INFO} says; it has {count}"
      )


def _copy_metadata(source: epath.Path, part: epath.Path) -> None:
  for file in source.iterdir():
    # Metadata come last: a folder without them isn't taken for a set.
    if file.suffix in (".json", ".txt") and file.name != _INFO:
      (part / file.name).write_bytes(file.read_bytes())
  info = json.loads((source / _INFO).read_text())
  info["fileFormat"] = download.FILE_FORMAT
  info.pop("alternativeFileFormats", None)
  # A template may fix the old suffix; without one TFDS takes its default.
  for split in info.get("splits", ()):
    split.pop("filepathTemplate", None)
  (part / _INFO).write_text(json.dumps(info, indent=2))
