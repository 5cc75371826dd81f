"""`python -m mobilevit_jax.data convert`."""

import json
import re
import shlex
import shutil

from etils import epath
import pytest

from mobilevit_jax.data import __main__ as command
from mobilevit_jax.data import sources
from mobilevit_jax.data.prepare import download

NAME = "imagenet2012"
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def tfrecord(prepared, tmp_path_factory):
  """The same set in TFRecord files."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  new = tmp_path_factory.mktemp("tfrecord") / NAME / "5.1.0"
  new.mkdir(parents=True)
  for file in prepared.glob("*.*"):
    if "array_record" not in file.name:
      text = file.read_text().replace("array_record", "tfrecord")
      (new / file.name).write_text(text)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  builder = tfds.builder_from_directory(prepared)
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


def test_refusal_names_the_command_that_converts(prepared, tfrecord):
  data_dir = tfrecord.parents[1]
  with pytest.raises(ValueError, match="must be array_record") as caught:
    sources.make_source(NAME, "train", data_dir=data_dir, prepare=False)
  words = shlex.split(str(caught.value).splitlines()[-1])
  assert words[:3] == ["python", "-m", "mobilevit_jax.data"]
  assert command.main(words[3:]) == 0
  (target,) = re.findall("use data_dir='(.*?)' from", str(caught.value))
  for split in SPLITS:
    assert _all(target, split) == _all(prepared.parents[1], split)


def test_conversion_goes_on_after_an_interruption(
  prepared, tfrecord, tmp_path, capsys
):
  args = ["convert", str(tfrecord), f"--data_dir={tmp_path}"]
  last = tfrecord / f"{NAME}-validation.tfrecord-00001-of-00002"
  whole = last.read_bytes()
  last.write_bytes(whole[:-10])
  assert command.main(args) == 1
  assert f"{last} is broken: " in capsys.readouterr().err
  (part,) = (tmp_path / NAME).iterdir()
  assert part.name == "incomplete.convert_5.1.0"
  # All but the broken file are there, and stay.
  done = {file.name: file.stat().st_mtime_ns for file in part.iterdir()}
  assert sorted(done) == sorted(f.name for f in prepared.glob("*-of-*"))[:3]
  last.write_bytes(whole)
  with download.only_run(epath.Path(part)):
    assert command.main(args) == 1
  assert f"another run is at work in {part}" in capsys.readouterr().err
  assert command.main(args) == 0
  assert "4 files, 3 of them there already" in capsys.readouterr().out
  for split in SPLITS:
    assert _all(tmp_path, split) == _all(prepared.parents[1], split)
  assert [f.name for f in (tmp_path / NAME).iterdir()] == ["5.1.0"]
  new = tmp_path / NAME / "5.1.0"
  assert {f.name for f in new.iterdir()} == {f.name for f in prepared.iterdir()}
  for name, time in done.items():
    assert (new / name).stat().st_mtime_ns == time


def test_missing_and_short_files_are_refused(tfrecord, tmp_path, capsys):
  source = shutil.copytree(tfrecord, tmp_path / NAME / "5.1.0")
  file = source / f"{NAME}-train.tfrecord-00001-of-00002"
  args = ["convert", str(source), f"--data_dir={tmp_path / 'out'}"]
  other = tfrecord / f"{NAME}-validation.tfrecord-00000-of-00002"
  shutil.copy(other, file)
  assert command.main(args) == 1
  assert f"{file} must hold 9 records" in capsys.readouterr().err
  file.unlink()
  shutil.rmtree(tmp_path / "out")
  assert command.main(args) == 1
  assert f"{file} is missing" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_custom_names_of_files_become_usual_ones(prepared, tfrecord, tmp_path):
  source = shutil.copytree(tfrecord, tmp_path / NAME / "5.1.0")
  for file in source.glob("*-of-*"):
    file.rename(file.with_name(file.name.replace(f"{NAME}-", "")))
  info = source / "dataset_info.json"
  template = '"filepathTemplate": "{SPLIT}.tfrecord-{SHARD_X_OF_Y}"'
  text, count = re.subn(
    r'"filepathTemplate": ".*?"', template, info.read_text()
  )
  assert count == 2
  info.write_text(text)
  out = tmp_path / "out"
  assert command.main(["convert", str(source), f"--data_dir={out}"]) == 0
  assert _all(out, "train") == _all(prepared.parents[1], "train")


@pytest.mark.parametrize(
  ("file", "old", "new", "message"),
  [
    ("dataset_info.json", '"5.1.0"', '"../5.1.0"', ""),
    ("dataset_info.json", '"imagenet2012"', '"../x"', ""),
    ("dataset_info.json", '"train"', '"../x"', "'../x' can't be part of"),
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
  assert command.main(args) == 1
  assert message in capsys.readouterr().err
  assert {*tmp_path.rglob("*")} == before
