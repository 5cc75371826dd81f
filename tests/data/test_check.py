import collections
import pathlib
import re

import cv2
import numpy as np
import pytest

from mobilevit_jax.data import __main__ as command
from mobilevit_jax.data import augment
from mobilevit_jax.data import check
from mobilevit_jax.data import sources

FLOWERS = pathlib.Path(__file__).resolve().parents[3] / "shared/data/flowers128"


def _picture(seed, height=48, width=64):
  """A smooth picture with something in it, another for each seed."""
  rough = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
  return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def _write(path, pixels, *parameters):
  path.parent.mkdir(parents=True, exist_ok=True)
  encoded = cv2.imencode(path.suffix, pixels[..., ::-1], parameters)[1]
  path.write_bytes(encoded.tobytes())


def _make(root, counts, seed=0):
  """Pictures as counts says: {"train/cat": 3}."""
  for folder, count in counts.items():
    for number in range(count):
      seed += 1
      _write(root / folder / f"{number}.png", _picture(seed))


@pytest.fixture
def sound(tmp_path):
  """A folder with nothing wrong about it."""
  _make(
    tmp_path,
    {"train/cat": 8, "train/dog": 5, "val/cat": 3, "val/dog": 2},
  )
  return tmp_path


def _check(root, **options):
  splits = {
    split: sources.make_source("folder", split, data_dir=root)
    for split in ("train", "val")
  }
  return check.check_splits(splits, **options)


def _counts(report):
  return {name: counts for name, counts in report.findings if any(counts)}


def test_sound_set_has_counts_and_nothing_to_say(sound):
  report = _check(sound, size=64, on_bad_image="error")
  assert report.problems == report.warnings == ()
  assert report.classes == (("cat", (8, 3)), ("dog", (5, 2)))
  assert report.images == (13, 5)
  assert _counts(report) == {}
  table = report.table()
  assert table[1].split() == ["cat", "8", "3", "61.5%"]
  assert "2 classes of 5 to 8 images, 1.6 times as many in train" in table


def test_finds_broken_files_by_name(sound):
  whole = (sound / "train/cat/0.png").read_bytes()
  (sound / "train/cat/0.png").write_bytes(whole[: len(whole) // 2])
  (sound / "train/dog/1.png").write_bytes(b"")
  (sound / "val/dog/0.png").write_text("no picture")
  report = _check(sound)
  assert _counts(report) == {"broken": (2, 1)}
  assert report.classes == (("cat", (7, 3)), ("dog", (4, 1)))
  assert report.problems == ()
  text = "\n".join(report.warnings)
  for name in ("train/cat/0.png", "train/dog/1.png", "val/dog/0.png"):
    assert name in text
  # A run that stops at broken images had better not begin.
  strict = _check(sound, on_bad_image="error")
  assert len(strict.problems) == 2 and not strict.warnings


def test_names_images_that_are_cut_and_go_on_with_something_else(sound):
  path = sound / "train/cat/grey.jpg"
  _write(path, _picture(7, 96, 96), cv2.IMWRITE_JPEG_QUALITY, 90)
  noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + noise)
  assert augment.decode(path.read_bytes(), "grey").shape == (96, 96, 3)
  report = _check(sound)
  assert _counts(report) == {"damaged, but decoded": (1, 0)}
  (warning,) = report.warnings
  assert warning.startswith("1 image that can be decoded, though the file is")
  assert "train/cat/grey.jpg" in warning
  assert not _check(sound, max_pixels=96 * 96).problems
  assert _counts(_check(sound, max_pixels=96 * 95))["broken"] == (1, 0)


def test_finds_copies_within_across_and_against_classes(sound):
  pixels = _picture(1)  # train/cat/0.png
  contents = (sound / "train/cat/0.png").read_bytes()
  (sound / "train/cat/again.png").write_bytes(contents)
  _write(sound / "train/cat/level.png", pixels, cv2.IMWRITE_PNG_COMPRESSION, 0)
  assert (sound / "train/cat/level.png").read_bytes() != contents
  (sound / "val/cat/leak.png").write_bytes(contents)
  lie = (sound / "train/cat/3.png").read_bytes()
  (sound / "val/dog/lie.png").write_bytes(lie)
  report = _check(sound)
  assert _counts(report) == {
    "copies of a file in the split": (1, 0),
    "same pixels in another file": (1, 0),
    "same pixels as one in train": (0, 2),
    "same pixels with another class": (1, 1),
  }
  assert report.problems == ()
  leaked, mixed, copies = report.warnings
  assert leaked.startswith("2 images to evaluate with (28.6%) also in train")
  assert "leak.png" in leaked and "lie.png" in leaked
  assert "lie.png" in leaked.split("(dog and cat)")[0]
  assert "val/dog/lie.png" in mixed and "dog and cat" in mixed
  assert "again.png" in copies and "level.png" in copies
  assert "lie.png" not in copies


def test_copies_are_those_of_a_plain_count(tmp_path):
  rng = np.random.default_rng(7)
  expected = {"train": collections.Counter(), "val": collections.Counter()}
  labels = collections.defaultdict(set)
  for number in range(120):
    split = ("train", "val")[number % 2]
    label, seed = f"c{rng.integers(3)}", int(rng.integers(40))
    _write(tmp_path / split / label / f"{number}.png", _picture(seed))
    expected[split][seed] += 1
    labels[seed].add(label)
  copies, leaked, mixed = zip(
    *(
      (
        sum(count - 1 for count in held.values()),
        sum(n for seed, n in held.items() if seed in expected["train"])
        * (split == "val"),
        sum(n for seed, n in held.items() if len(labels[seed]) > 1),
      )
      for split, held in expected.items()
    ),
    strict=True,
  )
  assert _counts(_check(tmp_path)) == {
    "copies of a file in the split": copies,
    "same pixels as one in train": leaked,
    "same pixels with another class": mixed,
  }


def test_finds_the_same_picture_in_another_size_but_no_plain_ones(sound):
  large = cv2.resize(_picture(1), (192, 144), interpolation=cv2.INTER_CUBIC)
  _write(sound / "val/cat/large.jpg", large, cv2.IMWRITE_JPEG_QUALITY, 90)
  for tone in (90, 91, 160):
    plain = np.full((64, 64, 3), tone, np.uint8)
    _write(sound / f"train/dog/{tone}.png", plain)
  report = _check(sound)
  assert _counts(report) == {
    "looks like another, not the same": (0, 1),
    "grey": (3, 0),
  }
  (warning,) = report.warnings
  assert "large.jpg" in warning and "train/cat/0.png" in warning


def test_finds_small_images(sound):
  _write(sound / "train/cat/tiny.png", _picture(90, 31, 64))
  _write(sound / "train/cat/small.png", _picture(91, 96, 40))
  report = _check(sound, size=96)
  counts = _counts(report)
  assert counts["a side under 32 px"] == (1, 0)
  assert counts["a side under half of 96 px"] == (2, 0)
  assert "tiny.png" in report.warnings[0]
  assert "small.png" in report.warnings[1]


@pytest.mark.parametrize(
  ("counts", "reason"),
  [
    ({"train/cat": 3, "val/cat": 2}, "at least 2 classes .* 1 class .cat"),
    (
      {"train/cat": 3, "train/dog": 1, "val/cat": 2},
      r"fewer than 2 usable images to train on in 1 class \(dog\)",
    ),
  ],
)
def test_refuses_by_name(tmp_path, counts, reason):
  _make(tmp_path, counts)
  (problem,) = _check(tmp_path).problems
  assert re.search(reason, problem)


def test_refuses_a_class_with_nothing_to_train_on(sound):
  (sound / "train/owl").mkdir()
  (problem,) = _check(sound).problems
  assert "no usable image to train on in 1 class (owl)" in problem


def test_refuses_evaluation_by_heart(sound):
  for path in (sound / "val").rglob("*.png"):
    path.unlink()
  for name in ("cat/1.png", "dog/2.png"):
    (sound / "val" / name).write_bytes((sound / "train" / name).read_bytes())
  (problem,) = _check(sound).problems
  assert "every image of val is also in train" in problem


def test_refuses_mostly_broken_sets(sound):
  for path in (sound / "val").rglob("*.png"):
    path.write_bytes(b"\xff\xd8broken")
  problems = _check(sound).problems
  assert "split val has no usable image to evaluate with" in problems
  assert "5 of 5 images of val are broken" in problems


def test_unreadable_files_are_not_called_broken(sound):
  splits = {
    split: sources.make_source("folder", split, data_dir=sound)
    for split in ("train", "val")
  }
  (sound / "train/cat/4.png").unlink()
  report = check.check_splits(splits)
  (problem,) = report.problems
  assert problem.startswith("1 image of train can't be read")
  assert "train/cat/4.png" in problem
  assert not report.warnings


def test_warns_of_uneven_classes_and_of_what_is_never_evaluated(tmp_path):
  _make(tmp_path, {"train/cat": 30, "train/dog": 3, "val/cat": 2})
  uneven, unseen = _check(tmp_path).warnings
  assert "30 training images of cat, 3 of dog" in uneven
  assert "split val has no image of 1 class (dog)" in unseen


def test_many_classes_give_a_short_table(tmp_path):
  _make(tmp_path, {f"train/c{i:02}": 2 + i % 3 for i in range(50)})
  _make(tmp_path, {"val/c00": 2}, seed=1000)
  table = _check(tmp_path).table()
  assert len(table) < 60
  assert any("(10 more classes)" in line for line in table)
  rows = [line.split() for line in table if re.match(r"c\d\d ", line)]
  sizes = [int(row[1]) for row in rows]
  assert sizes == sorted(sizes, reverse=True) and len(sizes) == 40


def test_report_comes_back_from_its_file(sound, tmp_path):
  _write(sound / "train/cat/tiny.png", _picture(90, 8, 8))
  report = _check(sound)
  report.save(tmp_path / "check.json")
  assert check.load(tmp_path / "check.json") == report


def test_command_prints_the_table_and_refuses_in_one_line(sound, capsys):
  args = ["check", "--data=folder", f"--data_dir={sound}"]
  assert command.main(args) == 0
  seen = capsys.readouterr()
  assert "broken" in seen.out and seen.err == ""
  (sound / "train/owl").mkdir()
  assert command.main(args) == 1
  seen = capsys.readouterr()
  assert "owl" in seen.out
  (line,) = seen.err.splitlines()
  assert line.startswith("data: this data can't be trained on: no us")
  assert command.main([*args, "--eval_split=train"]) == 1
  assert "must differ" in capsys.readouterr().err


def test_command_knows_digits(capsys):
  assert command.main(["check", "--data=digits"]) == 0
  assert "1797 of 1797 images with a side under 32" in capsys.readouterr().out


@pytest.mark.skipif(not FLOWERS.exists(), reason="needs ../shared")
def test_flowers_have_four_photographs_of_two_classes():
  report = _check(FLOWERS)
  assert report.images == (3452, 865) and report.problems == ()
  counts = _counts(report)
  assert counts["same pixels with another class"] == (6, 2)
  assert counts["copies of a file in the split"] == (5, 1)
  # One photograph in another tone.
  assert counts["looks like another, not the same"] == (1, 0)
