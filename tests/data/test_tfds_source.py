import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mobilevit_jax.data import bad_images
from mobilevit_jax.data import examples
from mobilevit_jax.data import sources
from mobilevit_jax.data.sources import tfds as tfds_source
from mobilevit_jax.data.transforms import classify
from tests import tiny_imagenet

NAME = "imagenet2012"


def _all(source):
  return [source[index] for index in range(len(source))]


def test_bytes_and_labels_come_back(tiny_imagenet_dir):
  source = sources.make_source(NAME, "train", data_dir=tiny_imagenet_dir)
  assert len(source.class_names) == 1000
  expected = {
    tiny_imagenet.image(name): label
    for synset, label in tiny_imagenet.SYNSETS.items()
    for name in tiny_imagenet.train_names(synset)
  }
  examples = _all(source)
  assert {e.image: e.target["label"] for e in examples} == expected
  assert len(examples) == len(expected)
  for synset, label in tiny_imagenet.SYNSETS.items():
    assert source.class_names[label] == synset
  assert [e.id for e in examples] == list(range(len(examples)))
  file = f"{NAME}-train.array_record-00000-of-00001"
  assert source.labels().tolist() == [e.target["label"] for e in examples]
  assert examples[4].name == f"tfds:{NAME}/train#4 ({file}, record 4)"


def test_validation_labels_are_the_official_ones(tiny_imagenet_dir):
  source = sources.make_source(NAME, "validation", data_dir=tiny_imagenet_dir)
  names = tiny_imagenet.val_names()
  expected = dict(
    zip(map(tiny_imagenet.image, names), tiny_imagenet.VAL_LABELS, strict=True)
  )
  examples = _all(source)
  assert {e.image: e.target["label"] for e in examples} == expected
  assert len(examples) == len(expected)


def test_part_of_a_split_and_copy_for_a_worker(tiny_imagenet_dir):
  def open_split(split):
    return sources.make_source(NAME, split, data_dir=tiny_imagenet_dir)

  images = [e.image for e in _all(open_split("train"))]
  part = pickle.loads(pickle.dumps(open_split("train[:50%]")))
  assert [e.image for e in _all(part)] == images[: len(images) // 2]


def test_reading_imports_no_tensorflow(tiny_imagenet_dir):
  code = f"""
import sys
from mobilevit_jax.data import sources
source = sources.make_source(
  {NAME!r}, "train", data_dir={str(tiny_imagenet_dir)!r}
)
print(len(source[0].image), "tensorflow" in sys.modules)
"""
  command = [sys.executable, "-c", code]
  output = subprocess.run(command, check=True, capture_output=True, text=True)
  length, loaded = output.stdout.split()
  assert int(length) > 100
  assert loaded == "False"


def test_tfrecord_files_are_refused_with_help(tiny_imagenet_dir, tmp_path):
  # What is there when the set was prepared with TFDS's default format.
  (prepared,) = (tiny_imagenet_dir / NAME).iterdir()
  version = tmp_path / NAME / prepared.name
  version.mkdir(parents=True)
  for file in prepared.iterdir():
    data = file.read_bytes()
    if file.suffix == ".json":
      data = data.replace(b"array_record", b"tfrecord")
    name = file.name.replace("array_record", "tfrecord")
    (version / name).write_bytes(data)
  info = json.loads((version / "dataset_info.json").read_text())
  assert info["fileFormat"] == "tfrecord"
  with pytest.raises(ValueError) as caught:
    sources.make_source(NAME, "train", data_dir=tmp_path)
  message = str(caught.value)
  assert f"name={NAME!r} must be array_record files" in message
  command = "python -m mobilevit_jax.data convert"
  target = f"{tmp_path}-array_record"
  assert message.endswith(f"\n  {command} {version} --data_dir={target}")
  assert f"use data_dir={target!r} from then on" in message


@pytest.mark.parametrize(
  ("name", "split", "message"),
  [
    (NAME, "val", "split='val' of 'imagenet2012': .*'train', 'validation'"),
    (f"{NAME}:9.9.9", "train", "name='imagenet2012:9.9.9': .*5.1.0"),
    ("cifar11", "train", "name='cifar11' must be 'digits', .* cifar10, "),
    ("digit", "train", "name='digit' must be 'digits', .*such as digits"),
    ("zzzz", "train", "name='zzzz' must be .* a data set of TFDS$"),
    ("div2k", "train", "name='div2k' must be a set of images with one class"),
    (
      "ag_news_subset",
      "train",
      "name='ag_news_subset' must be a set of images",
    ),
  ],
)
def test_unknown_or_unfit_set_is_refused(
  tiny_imagenet_dir, name, split, message
):
  with pytest.raises(ValueError, match=message) as caught:
    sources.make_source(name, split, data_dir=tiny_imagenet_dir)
  _, _, near = str(caught.value).partition("such as ")
  assert len(set(near.split(", "))) == len(near.split(", "))


def test_only_one_process_prepares(tmp_path):
  with pytest.raises(ValueError, match="name='mnist' must be prepared in"):
    sources.make_source("mnist", "train", data_dir=tmp_path, prepare=False)


@pytest.mark.parametrize("missing", ["train", "val", "both"])
def test_missing_archives_are_named(tmp_path, missing):
  tars = {s: f"ILSVRC2012_img_{s}.tar" for s in ("train", "val")}
  manual = tmp_path / "downloads" / "manual"
  manual.mkdir(parents=True)
  for split, tar in tars.items():
    if missing not in (split, "both"):
      (manual / tar).touch()
  with pytest.raises(ValueError, match=r"name='imagenet2012'") as caught:
    sources.make_source(NAME, "train", data_dir=tmp_path)
  before, _, listed = str(caught.value).partition("; missing: ")
  assert str(manual) in before
  expected = tars.values() if missing == "both" else [tars[missing]]
  assert listed.split(", ") == list(expected)
  # Nothing half-made stays behind, to be taken for the whole later.
  assert not (tmp_path / NAME).exists()


@pytest.fixture
def copy(tiny_imagenet_dir, tmp_path):
  """A copy of the prepared version's folder, to break."""
  (prepared,) = (tiny_imagenet_dir / NAME).iterdir()
  target = tmp_path / NAME / prepared.name
  shutil.copytree(prepared, target)
  return target


def _break(version, wanted):
  """Flips a bit in the middle of a part of the training file."""
  file = version / f"{NAME}-train.array_record-00000-of-00001"
  data = bytearray(file.read_bytes())
  # Records fill the first 64 KiB from its start, the index the next.
  part = {"record": data[: 2**16], "index": data[2**16 :]}[wanted]
  at = len(bytes(part).rstrip(b"\0")) // 2
  data[at + (2**16 if wanted == "index" else 0)] ^= 1
  file.write_bytes(data)


def _load(source, index, *, replace=True):
  transform = classify.ClassifyTransform()
  return bad_images.load(source, transform, index, replace=replace)


def test_broken_record_is_replaced_and_said_to_be(copy):
  _break(copy, "record")
  source = tfds_source.open_prepared(NAME, "train", copy)
  loaded = [_load(source, i) for i in range(18)]
  ((bad, other),) = [(i, one) for i, one in enumerate(loaded) if one.error]
  own = loaded[other.example.id].example
  np.testing.assert_array_equal(other.example.image, own.image)
  assert other.example.target == own.target
  file = f"{NAME}-train.array_record-00000-of-00001"
  assert source.place(bad) == (file, bad)
  where = f"tfds:{NAME}/train#{bad} ({file}, record {bad})"
  assert other.error.startswith(f"{where}: broken record: Corrupted")
  with pytest.raises(examples.ImageError, match="broken record: Corrupted"):
    _load(source, bad, replace=False)


def test_broken_record_is_named_by_file_and_number(prepared, tmp_path):
  target = shutil.copytree(prepared, tmp_path / NAME / prepared.name)
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


@pytest.mark.parametrize(
  ("fault", "message"),
  [
    ("index", "can't be read: Corrupted .*Failed to read"),
    ("short", "can't be read: ArrayRecord file should be at least"),
    ("missing", "can't be read: open.. failed: No such file"),
  ],
)
def test_broken_file_is_not_a_broken_record(copy, fault, message):
  file = copy / f"{NAME}-train.array_record-00000-of-00001"
  if fault == "index":
    _break(copy, "index")
  elif fault == "short":
    file.write_bytes(file.read_bytes()[:1000])
  else:
    file.unlink()
  source = tfds_source.open_prepared(NAME, "train", copy)
  with pytest.raises(examples.StorageError, match=message):
    _load(source, 0)


def test_example_without_label_is_refused():
  records = [{"image": b"", "label": 0}, {"image": b"", "label": -1}]
  files = [("x-test.array_record-00000-of-00001", 0, 2)]
  source = tfds_source.TfdsSource("tfds:x/test", ("a",), records, files)
  assert source[0].target["label"] == 0
  with pytest.raises(ValueError, match=r"'tfds:x/test' must be labelled.*#1"):
    source[1]
