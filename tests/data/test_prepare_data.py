"""The `prepare_data` command."""

import json
import re
import shlex

import pytest

from mobilevit_jax.data import __main__ as prepare_data
from mobilevit_jax.data import examples
from mobilevit_jax.data import sources
from mobilevit_jax.data.sources import tfds as tfds_source
from tests import tiny_imagenet

NAME = "imagenet2012"
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """The command's own result, from archives in a folder of their own."""
  base = tmp_path_factory.mktemp("prepare")
  tiny_imagenet.write_archives(base)
  manual, out = base / "downloads" / "manual", base / "out"
  args = [NAME, f"--manual_dir={manual}", f"--data_dir={out}"]
  assert prepare_data.main([*args, "--num_shards=2"]) == 0
  return args, out


@pytest.fixture(scope="module")
def tfrecord(prepared, tmp_path_factory):
  """The same set in TFRecord files."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  old = prepared[1] / NAME / "5.1.0"
  new = tmp_path_factory.mktemp("tfrecord") / NAME / "5.1.0"
  new.mkdir(parents=True)
  for file in old.glob("*.*"):
    if "array_record" not in file.name:
      text = file.read_text().replace("array_record", "tfrecord")
      (new / file.name).write_text(text)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  builder = tfds.builder_from_directory(old)
  for split in SPLITS:
    records = [*builder.as_data_source(split, deserialize_method=raw)]
    begin = 0
    for shard, length in enumerate(builder.info.splits[split].shard_lengths):
      path = new / f"{NAME}-{split}.tfrecord-{shard:05}-of-00002"
      with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records[begin : begin + length]:
          writer.write(record)
      begin += length
  return new


def _all(data_dir, split):
  source = sources.make_source(NAME, split, data_dir=data_dir, prepare=False)
  return [
    (e.image, e.target["label"])
    for e in (source[i] for i in range(len(source)))
  ]


def test_finished_set_is_left_alone(prepared, capsys):
  args, out = prepared
  files = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
  names = {file.name for file in files}
  assert f"{NAME}-train.array_record-00001-of-00002" in names
  assert prepare_data.main(args) == 0
  assert "train, 18 images" in capsys.readouterr().out
  assert files == {f: f.stat().st_mtime_ns for f in files}


def test_refusal_names_the_command_that_converts(prepared, tfrecord):
  data_dir = tfrecord.parents[1]
  with pytest.raises(ValueError, match="must be array_record") as caught:
    sources.make_source(NAME, "train", data_dir=data_dir, prepare=False)
  command = shlex.split(str(caught.value).splitlines()[-1])
  assert command[:3] == ["python", "-m", "mobilevit_jax.data"]
  assert prepare_data.main(command[3:]) == 0
  (target,) = re.findall("use data_dir='(.*?)' from", str(caught.value))
  for split in SPLITS:
    assert _all(target, split) == _all(prepared[1], split)


def test_conversion_goes_on_after_an_interruption(prepared, tfrecord, tmp_path):
  args = ["convert", str(tfrecord), f"--data_dir={tmp_path}"]
  last = tfrecord / f"{NAME}-validation.tfrecord-00001-of-00002"
  whole = last.read_bytes()
  last.write_bytes(whole[:-10])
  assert prepare_data.main(args) == 1
  assert [f.name for f in (tmp_path / NAME).iterdir()] == [
    "incomplete.convert_5.1.0"
  ]
  last.write_bytes(whole)
  assert prepare_data.main(args) == 0
  assert _all(tmp_path, "validation") == _all(prepared[1], "validation")
  assert [f.name for f in (tmp_path / NAME).iterdir()] == ["5.1.0"]
  assert not list((tmp_path / NAME / "5.1.0").glob("*.part"))


@pytest.mark.parametrize(
  ("file", "old", "new", "message"),
  [
    ("dataset_info.json", '"5.1.0"', '"../5.1.0"', ""),
    ("dataset_info.json", '"imagenet2012"', '"../x"', ""),
    (
      "features.json",
      "tensorflow_datasets.core.features.image",
      "os.image",
      "no class of TFDS",
    ),
  ],
)
def test_metadata_is_not_trusted(
  tfrecord, tmp_path, capsys, file, old, new, message
):
  source = tmp_path / "in" / NAME / "5.1.0"
  source.mkdir(parents=True)
  for path in tfrecord.iterdir():
    (source / path.name).write_bytes(path.read_bytes())
  text = (source / file).read_text()
  assert old in text
  (source / file).write_text(text.replace(old, new))
  json.loads((source / file).read_text())
  before = {*tmp_path.rglob("*")}
  args = ["convert", str(source), f"--data_dir={tmp_path / 'in' / 'out'}"]
  assert prepare_data.main(args) == 1
  assert message in capsys.readouterr().err
  assert {*tmp_path.rglob("*")} == before


def test_broken_record_is_named_by_file_and_number(prepared, tmp_path):
  (version,) = (prepared[1] / NAME).iterdir()
  target = tmp_path / NAME / version.name
  target.mkdir(parents=True)
  for path in version.iterdir():
    (target / path.name).write_bytes(path.read_bytes())
  file = f"{NAME}-train.array_record-00001-of-00002"
  data = bytearray((target / file).read_bytes())
  # Half-way into the first block of 64 KiB, where all of the records are.
  data[len(bytes(data[: 2**16]).rstrip(b"\0")) // 2] ^= 255
  (target / file).write_bytes(data)
  split = tfds_source.open_prepared(NAME, "train", target)
  broken = []
  for index in range(len(split)):
    try:
      split[index]
    except examples.ImageError as error:
      broken.append((index, str(error)))
  ((index, message),) = broken
  assert f"/train#{index} ({file}, record {index - 9}): broken" in message
