import hashlib
import pathlib
import pickle

import cv2
import numpy as np
import pytest

from mobilevit_jax.data import sources
from mobilevit_jax.data.sources import folder

FLOWERS = pathlib.Path(__file__).resolve().parents[3] / "shared/data/flowers128"


def _png(number):
  """Another picture for each number."""
  pixels = np.full((3, 4, 3), (*divmod(number, 256), 7), np.uint8)
  return cv2.imencode(".png", pixels)[1].tobytes()


def _write(root, files):
  """Writes pictures, numbered by their place, to these paths."""
  for number, path in enumerate(files):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(_png(number))


def _open(root, split):
  return sources.make_source("folder", split, data_dir=root)


def _listed(source, root):
  """Path below the root and label of every example."""
  examples = [source[index] for index in range(len(source))]
  return [
    (
      pathlib.Path(e.name).relative_to(root.resolve()).as_posix(),
      e.target["label"],
    )
    for e in examples
  ]


def test_digits_are_those_of_the_published_split():
  from sklearn import datasets

  scans, labels = datasets.load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(1797)
  train = sources.make_source("digits", "train")
  test = sources.make_source("digits", "test")
  assert (len(train), len(test)) == (1437, 360)
  assert train.class_names == test.class_names == tuple("0123456789")
  assert len(train.class_names) == 10
  # Together, in this order, they are all scans: none is in both.
  examples = [s[i] for s in (train, test) for i in range(len(s))]
  assert [e.target["label"] for e in examples] == labels[order].tolist()
  pixels = np.stack([e.image for e in examples])
  assert pixels.shape == (1797, 8, 8, 3) and pixels.dtype == np.uint8
  exact = scans[order].reshape(1797, 8, 8, 1) * (255 / 16)
  assert np.abs(pixels - exact).max() <= 0.5
  assert (pixels.min(), pixels.max()) == (0, 255)
  assert (test[5].id, test[5].name) == (5, "digits/test#5")


def test_folder_with_splits(tmp_path):
  _write(
    tmp_path,
    [
      "train/dog/b.png",
      "train/dog/a.JPG",
      "train/cat/deeper/x.jpeg",
      "train/cat/notes.txt",
      "train/cat/.hidden.png",
      "train/cat/.thumbnails/x.png",
      "train/.cache/x.png",
      "train/not_in_a_class.png",
      "val/dog/v.png",
    ],
  )
  train = _open(tmp_path, "train")
  assert _listed(train, tmp_path) == [
    ("train/cat/deeper/x.jpeg", 0),
    ("train/dog/a.JPG", 1),
    ("train/dog/b.png", 1),
  ]
  assert train.class_names == ("cat", "dog")
  assert len(train.class_names) == 2
  assert [train[i].id for i in range(3)] == [0, 1, 2]
  assert train[2].image == _png(0)
  # A class without images in this split keeps its label.
  val = _open(tmp_path, "val")
  assert _listed(val, tmp_path) == [("val/dog/v.png", 1)]
  assert val.class_names == train.class_names


def test_folder_without_splits_is_split_by_contents(tmp_path):
  names = [f"class{n % 3}/{n:03}.png" for n in range(300)]
  _write(tmp_path, names)
  copies = ["class0/copy.png", "class1/copy.png"]
  for copy in copies:
    (tmp_path / copy).write_bytes(_png(0))
  train, val = _open(tmp_path, "train"), _open(tmp_path, "val")
  assert train.class_names == val.class_names
  found = {}
  for source, is_val in ((train, False), (val, True)):
    for path, label in _listed(source, tmp_path):
      assert path.startswith(f"class{label}/")
      assert path not in found
      found[path] = is_val
  assert sorted(found) == sorted(names + copies)
  for path, is_val in found.items():
    digest = hashlib.sha1((tmp_path / path).read_bytes()).digest()
    assert is_val == (digest[0] < 51), path
  # A fifth of 302 is 60; five standard deviations are 35.
  assert 25 < len(val) < 95
  # Names and other files have no say: a file stays on its side.
  assert {found[copy] for copy in copies} == {found[names[0]]}
  (tmp_path / names[1]).unlink()
  assert len(_open(tmp_path, "train")) + len(_open(tmp_path, "val")) == 301


def test_links_are_followed_inside_the_folder_only(tmp_path):
  inside, outside = tmp_path / "data", tmp_path / "elsewhere"
  _write(inside, ["train/a/1.png", "train/b/2.png"])
  _write(outside, ["c/3.png"])
  (inside / "train/a/link.png").symlink_to(inside / "train/b/2.png")
  (inside / "train/a/out.png").symlink_to(outside / "c/3.png")
  (inside / "train/c").symlink_to(outside / "c")
  source = _open(inside, "train")
  assert source.class_names == ("a", "b")
  assert [path for path, _ in _listed(source, inside)] == [
    "train/a/1.png",
    "train/a/link.png",
    "train/b/2.png",
  ]


def test_folder_may_be_given_through_a_link_or_relative(tmp_path, monkeypatch):
  _write(tmp_path / "data", ["train/a/1.png"])
  (tmp_path / "link").symlink_to(tmp_path / "data")
  assert len(_open(tmp_path / "link", "train")) == 1
  monkeypatch.chdir(tmp_path)
  source = _open("data", "train")
  # A worker, or a later step, may run in another folder.
  monkeypatch.chdir("/")
  assert pickle.loads(pickle.dumps(source))[0].image == _png(0)


@pytest.mark.parametrize(
  ("files", "split", "message"),
  [
    ([], "train", "must hold class sub-folders"),
    (["1.png"], "train", "must hold class sub-folders"),
    (["train/1.png"], "train", "must hold .*images for split='train'"),
    (["train/a/1.txt"], "train", "must hold .jpeg/.jpg/.png images"),
    (["train/a/1.png"], "valid", "split='valid' is missing: .* holds train"),
    (["train/a/1.png"], "val", "must hold val/CLASS/IMAGE too"),
    (["train/a/1.png", "docs/x.png"], "val", "split='val' is missing"),
    (["val/a/1.png", "test/a/1.png"], "train", "missing: .* val, test with"),
    (["a/1.png"], "test", "split='test' must be 'train' or 'val', or"),
    (["a/1.png"], "..", r"split='..' must be 'train' or 'val', or"),
    (
      ["train/a/1.png", "val/a/1.png", "val/new/1.png"],
      "val",
      "split='val' of .* must have no class that its train split lacks.*'new'",
    ),
  ],
)
def test_impossible_folder_is_refused(tmp_path, files, split, message):
  _write(tmp_path, files)
  with pytest.raises(ValueError, match=message):
    _open(tmp_path, split)


def test_class_may_be_called_as_a_split(tmp_path):
  # Its own images tell: a split holds nothing but classes.
  _write(tmp_path, [f"train/{n}.png" for n in range(30)])
  _write(tmp_path, ["train/steam/1.png", "car/1.png"])
  assert _open(tmp_path, "val").class_names == ("car", "train")


def test_missing_folder_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"data_dir=.*nowhere' must be a folder"):
    folder.open_split(tmp_path / "nowhere", "train")
  with pytest.raises(ValueError, match="data_dir=None must be the folder"):
    sources.make_source("folder", "train")


def test_unknown_digits_split_is_refused():
  with pytest.raises(ValueError, match="split='val' must be 'train' or 'test'"):
    sources.make_source("digits", "val")


@pytest.mark.skipif(not FLOWERS.is_dir(), reason="needs the flowers128 images")
def test_flowers_split():
  train, val = _open(FLOWERS, "train"), _open(FLOWERS, "val")
  assert (len(train), len(val)) == (4317 - 865, 865)
  classes = ("daisy", "dandelion", "rose", "sunflower", "tulip")
  assert train.class_names == val.class_names == classes


def test_few_shot_is_so_many_of_each_class_and_grows():
  whole = sources.make_source("digits", "train")
  np.testing.assert_array_equal(
    whole.labels(),
    [whole[index].target["label"] for index in range(len(whole))],
  )
  few = sources.few_shot(whole, 3, seed=0)
  assert np.bincount(few.labels()).tolist() == [3] * 10
  assert [few[i].target["label"] for i in range(30)] == few.labels().tolist()
  assert [few[i].id for i in range(30)] == list(range(30))
  names = {few[i].name for i in range(30)}
  more = sources.few_shot(whole, 4, seed=0)
  assert names < {more[i].name for i in range(len(more))}
  other = sources.few_shot(whole, 3, seed=1)
  assert names != {other[i].name for i in range(30)}


def test_few_shot_keeps_small_classes_whole(tmp_path):
  files = [f"train/a/{i}.png" for i in range(9)] + ["train/b/0.png"]
  _write(tmp_path, files)
  few = sources.few_shot(_open(tmp_path, "train"), 4, seed=0)
  assert few.labels().tolist() == [0] * 4 + [1]
  assert few.place(4)[0].endswith("train/b/0.png")


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_bad_few_shot_is_refused(count):
  with pytest.raises(ValueError, match="few_shot="):
    sources.few_shot(sources.make_source("digits", "test"), count, seed=0)
