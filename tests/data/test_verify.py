"""`python -m mobilevit_jax.data verify`, and `check` of a TFDS set."""

import importlib
import shutil

import pytest

from mobilevit_jax.data import __main__ as command
from tests import tiny_imagenet

NAME = "imagenet2012"
TRAIN = f"{NAME}-train.array_record-0000{{}}-of-00002"


@pytest.fixture
def copy(prepared, tmp_path):
  return shutil.copytree(prepared, tmp_path / NAME / prepared.name)


def _records(file):
  module = importlib.import_module("array_record.python.array_record_module")
  reader = module.ArrayRecordReader(str(file))
  return reader.read_all()


def _write(file, records):
  module = importlib.import_module("array_record.python.array_record_module")
  writer = module.ArrayRecordWriter(str(file), "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()


def _verify(capsys, path, *args):
  capsys.readouterr()
  status = command.main(["verify", str(path), *args])
  return status, capsys.readouterr().out.splitlines()


def test_sound_set_is_verified(prepared, capsys):
  status, lines = _verify(capsys, prepared, "--sample=all")
  assert lines == [
    "train: 18 images in 2 files, 18 decoded, 0 broken",
    "validation: 7 images in 2 files, 7 decoded, 0 broken",
  ]
  assert status == 0
  status, lines = _verify(capsys, prepared, "--sample=10")
  assert [line.split(", ")[1] for line in lines] == ["10 decoded", "7 decoded"]


def test_broken_records_are_named(copy, capsys):
  file = copy / TRAIN.format(1)
  records = _records(file)
  images = [
    tiny_imagenet.image(name)
    for synset in tiny_imagenet.SYNSETS
    for name in tiny_imagenet.train_names(synset)
  ]
  (jpeg,) = [image for image in images if image in records[2]]
  records[2] = records[2].replace(jpeg, b"?" * len(jpeg))
  _write(file, records)
  data = bytearray(file.read_bytes())
  # In the last third of the records, one of which fails its checksum then.
  data[len(bytes(data[: 2**16]).rstrip(b"\0")) * 5 // 6] ^= 1
  file.write_bytes(data)
  status, lines = _verify(capsys, copy, "--sample=all")
  where = f"broken: tfds:{NAME}/train#"
  assert [line.partition(": cannot")[0] for line in lines[:1]] == [
    f"{where}11 ({file.name}, record 2)"
  ]
  index = int(lines[1].removeprefix(where).split()[0])
  assert 15 <= index <= 17
  assert lines[1].startswith(
    f"{where}{index} ({file.name}, record {index - 9}): broken record: Corrupt"
  )
  assert lines[2] == "train: 18 images in 2 files, 18 decoded, 2 broken"
  assert lines[3] == "validation: 7 images in 2 files, 7 decoded, 0 broken"
  assert status == 1


def test_broken_files_are_named_once(copy, capsys):
  short, missing = copy / TRAIN.format(0), copy / TRAIN.format(1)
  _write(short, _records(short)[:-1])
  missing.unlink()
  (cut,) = copy.glob("*validation*-00000-of-*")
  cut.write_bytes(cut.read_bytes()[:999])
  status, lines = _verify(capsys, copy, "--sample=all")
  assert lines[:3] == [
    f"broken: {short} has 8 records; dataset_info.json says 9",
    f"broken: {missing} is missing",
    "train: 18 images in 2 files, 0 decoded, 2 broken",
  ]
  assert lines[3].startswith(f"broken: {cut} can't be read: ArrayRecord file")
  assert status == 1


def test_what_is_no_prepared_set_is_refused(archives, copy, capsys):
  (copy / "dataset_info.json").unlink()
  assert command.main(["verify", str(copy)]) == 1
  assert "it has no dataset_info.json" in capsys.readouterr().err
  before = {*copy.parents[1].rglob("*")}
  args = [f"--manual_dir={archives}", f"--data_dir={copy.parents[1]}"]
  assert command.main([NAME, *args]) == 1
  message = f"{copy} has no dataset_info.json, so it is no prepared set"
  assert message in capsys.readouterr().err
  assert {*copy.parents[1].rglob("*")} == before
  with pytest.raises(SystemExit):
    command.main(["verify", str(copy), "--sample=some"])
  assert "'some' must be a number from 0 or all" in capsys.readouterr().err


def test_check_reads_prepared_sets(prepared, capsys):
  args = ["check", f"--data={NAME}", f"--data_dir={prepared.parents[1]}"]
  # Eighteen images of a thousand classes.
  assert command.main(args) == 1
  seen = capsys.readouterr()
  assert "no usable image to train on in 9" in seen.err
  assert "(960 more classes)" in seen.out
