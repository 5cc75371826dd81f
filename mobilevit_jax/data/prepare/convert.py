"""From the TFRecord files of a prepared TFDS set to ArrayRecord files.

TFDS's own converter needs apache-beam, which downgrades protobuf and numpy.
Records are copied byte for byte, file by file.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
import json
import os
import re
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

from mobilevit_jax.data.prepare import download
from mobilevit_jax.data.prepare import shards

_INFO = download.INFO_FILE
_FEATURES = "features.json"
# Names that make up the target's path; they come from a file.
_SAFE = re.compile(r"\w[\w.+-]*")


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
  source = epath.Path(source)
  for name in (_INFO, _FEATURES):
    if not (source / name).exists():
      raise ValueError(
        f"{source} must be the folder of a prepared version, such as "
        f"DIR/imagenet2012/5.1.0; it has no {name}"
      )
  _check_classes(source)
  reader: Any = tfds.builder_from_directory(source)
  info = reader.info
  download.check_features(str(source), info.features)
  found = info.file_format.value
  if found != "tfrecord":
    raise ValueError(f"{source} must hold tfrecord files, not {found}")
  parts = [*filter(None, (info.name, info.config_name, str(info.version)))]
  if unsafe := [part for part in parts if not _SAFE.fullmatch(part)]:
    raise ValueError(f"{source}: {unsafe[0]!r} can't be part of a path")
  target = epath.Path(data_dir).joinpath(*parts)
  if target.exists():
    raise ValueError(f"{target} exists already; give another --data_dir")
  part = target.parent / f"incomplete.convert_{target.name}"
  files = [*_files(source, part, info.splits.values())]
  todo = [old for _, old, new, _ in files if not new.exists()]
  sizes = (old.stat().length for old in todo if old.exists())
  download.check_space(part, sum(sizes))
  with shards.only_run(part):
    shards.write_missing(
      [
        shards.Shard(
          split, new, length, functools.partial(_convert_file, old, new, length)
        )
        for split, old, new, length in files
      ]
    )
    _copy_metadata(source, part)
    part.rename(target)
  return target


def _check_classes(source: epath.Path) -> None:
  """Refuses features of classes that are not TFDS's: it would import them."""
  todo: list[Any] = [json.loads((source / _FEATURES).read_text())]
  while todo:
    node = todo.pop()
    if isinstance(node, dict):
      kind = node.get("pythonClassName", "tensorflow_datasets.")
      if not str(kind).startswith("tensorflow_datasets."):
        raise ValueError(f"{source / _FEATURES}: {kind!r} is no class of TFDS")
      todo += node.values()
    elif isinstance(node, list):
      todo += node


def _files(
  source: epath.Path, part: epath.Path, splits: Any
) -> Iterator[tuple[str, epath.Path, epath.Path, int]]:
  """Split, old file, new file and number of records of every file."""
  for split in splits:
    lengths, template = split.shard_lengths, split.filename_template
    renamed = template.replace(filetype_suffix=download.FILE_FORMAT)
    for index, length in enumerate(lengths):
      # Only the last part: a template may come from anywhere.
      at = {"shard_index": index, "num_shards": len(lengths)}
      old = template.sharded_filepath(**at).name
      new = renamed.sharded_filepath(**at).name
      yield split.name, source / old, part / new, length


def _convert_file(old: epath.Path, new: epath.Path, length: int) -> None:
  if not old.exists():
    raise ValueError(f"{old} is missing: the set can't be converted in whole")
  count = 0
  with shards.new_file(new) as writer:
    for record in _records(old):
      writer.write(record)
      count += 1
    if count != length:
      raise ValueError(
        f"{old} must hold {length} records, as {_INFO} says; it has {count}"
      )


def _records(path: epath.Path) -> Iterator[Any]:
  # Imported late: it takes seconds, and only conversion needs it.
  import tensorflow as tf

  try:
    yield from tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator()
  except tf.errors.DataLossError as error:
    raise ValueError(f"{path} is broken: {error.message}") from error


def _copy_metadata(source: epath.Path, part: epath.Path) -> None:
  for file in source.iterdir():
    if file.suffix in (".json", ".txt") and file.name != _INFO:
      (part / file.name).write_bytes(file.read_bytes())
  info = json.loads((source / _INFO).read_text())
  info["fileFormat"] = download.FILE_FORMAT
  info.pop("alternativeFileFormats", None)
  # A template may fix the old suffix; without one TFDS takes its default.
  for split in info.get("splits", ()):
    split.pop("filepathTemplate", None)
  (part / _INFO).write_text(json.dumps(info, indent=2))
