"""ImageNet's preparation: TFDS's own result, and going on after a kill."""

import io
import pathlib
import signal
import subprocess
import sys
import tarfile
from typing import Any

from etils import epath
import pytest

from mobilevit_jax.data import __main__ as prepare_data
from mobilevit_jax.data.prepare import shards
from tests import tiny_imagenet

NAME = "imagenet2012"
SPLITS = {"train": 19, "validation": 7, "test": 3}
# One that TFDS repairs, in an archive where TFDS looks for it.
REPAIRED = "n01739381_1309.JPEG"
# Small enough for several files of each split.
MIN_SHARD_SIZE = 2048
KILLED = """
import os, signal, sys
from tensorflow_datasets.core.utils import shard_utils
from mobilevit_jax.data import __main__ as prepare_data
from mobilevit_jax.data.prepare import imagenet

shard_utils.ShardConfig.min_shard_size = int(sys.argv[1])
add = imagenet._Progress.add

def add_or_die(self, *args):
  add(self, *args)
  if len(self.num_bytes) == 4:
    os.kill(os.getpid(), signal.SIGKILL)

imagenet._Progress.add = add_or_die
prepare_data.main(sys.argv[2:])
"""


def _add(archive: pathlib.Path, name: str, data: bytes) -> None:
  with tarfile.open(archive, "a") as tar:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
  """The tiny ImageNet's, a file that TFDS repairs, and a test split."""
  base = tmp_path_factory.mktemp("archives")
  tiny_imagenet.write_archives(base)
  manual = base / "downloads" / "manual"
  inner = base / "inner.tar"
  _add(inner, REPAIRED, tiny_imagenet.image(REPAIRED))
  train = manual / "ILSVRC2012_img_train.tar"
  _add(train, f"{REPAIRED[:9]}.tar", inner.read_bytes())
  for number in range(SPLITS["test"]):
    name = f"ILSVRC2012_test_{number:08d}.JPEG"
    test = manual / "ILSVRC2012_img_test.tar"
    _add(test, name, tiny_imagenet.image(name))
  return manual


def _version(data_dir: pathlib.Path) -> pathlib.Path:
  (version,) = (data_dir / NAME).iterdir()
  return version


def _records(version: pathlib.Path) -> dict[str, list[tuple[Any, ...]]]:
  """Not their bytes: the order of a record's features isn't fixed."""
  import tensorflow_datasets as tfds

  reader: Any = tfds.builder_from_directory(version)
  keep = {"image": tfds.decode.SkipDecoding()}
  return {
    name: [
      (record["file_name"], int(record["label"]), record["image"])
      for record in reader.as_data_source(name, decoders=keep)
    ]
    for name in reader.info.splits
  }


@pytest.mark.slow
def test_killed_run_goes_on_to_what_tfds_prepares(
  archives, tmp_path, monkeypatch, capsys
):
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.utils import shard_utils

  size = MIN_SHARD_SIZE
  monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", size)
  tfds.builder(NAME, data_dir=str(tmp_path / "tfds")).download_and_prepare(
    file_format="array_record",
    download_config=tfds.download.DownloadConfig(manual_dir=archives),
  )
  out = tmp_path / "out"
  args = [NAME, f"--manual_dir={archives}", f"--data_dir={out}"]
  run = subprocess.run([sys.executable, "-c", KILLED, str(size), *args])
  assert run.returncode == -signal.SIGKILL
  part = _version(out)
  assert part.name == "incomplete.prepare_5.1.0"
  done = [*part.glob("*.array_record-?????-of-?????")]
  assert len(done) == 3
  assert len([*part.glob("*.array_record-*.part")]) == 1
  files = {file.name: file.stat() for file in done}
  with shards.only_run(epath.Path(part)):
    assert prepare_data.main(args) == 1
  assert f"another run is at work in {part}" in capsys.readouterr().err
  assert prepare_data.main([*args, "--num_shards=1"]) == 1
  assert f"{part} was begun with other archives" in capsys.readouterr().err
  assert prepare_data.main([*args, "--remove_leftovers"]) == 0
  assert "3 of them there already" in capsys.readouterr().out
  ours, theirs = _version(out), _version(tmp_path / "tfds")
  for name, before in files.items():
    after = (ours / name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (
      before.st_ino,
      before.st_mtime_ns,
    )
  names = sorted(file.name for file in theirs.iterdir())
  assert sorted(file.name for file in ours.iterdir()) == names
  assert sum("-train.array_record" in name for name in names) > 3
  for name in names:
    if "array_record" not in name:
      assert (ours / name).read_text() == (theirs / name).read_text(), name
  records = _records(ours)
  assert {name: len(found) for name, found in records.items()} == SPLITS
  assert records == _records(theirs)
  images = {name.decode(): image for name, _, image in records["train"]}
  for name, image in images.items():
    assert (image == tiny_imagenet.image(name)) == (name != REPAIRED)


@pytest.mark.parametrize(
  ("split", "offset"), [("train", 700), ("train", -2000), ("val", -2000)]
)
def test_broken_archive_is_refused(archives, tmp_path, capsys, split, offset):
  for file in archives.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  file = tmp_path / f"ILSVRC2012_img_{split}.tar"
  data = file.read_bytes().rstrip(b"\0")
  file.write_bytes(data[:offset])
  out = tmp_path / "out"
  args = [NAME, f"--manual_dir={tmp_path}", f"--data_dir={out}"]
  assert prepare_data.main(args) == 1
  assert "broken archive" in capsys.readouterr().err
  assert not [*out.rglob("incomplete*")]
