"""Odd names and damaged files cost a run a line each, and it goes on."""

import json
import os
import shutil

import numpy as np
from PIL import Image
import pytest

pytestmark = pytest.mark.slow

ODD = (b"caf\xe9", b"new\nline\x1b[31m")  # no UTF-8; a command to a terminal


def _images(folder):
  """Two classes of odd names, with a broken image and links in a circle."""
  rng = np.random.default_rng(0)
  for split, count in (("train", 12), ("val", 4)):
    for name in ODD:
      place = folder / split / os.fsdecode(name)
      place.mkdir(parents=True)
      for index in range(count):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
  place = folder / "train" / os.fsdecode(ODD[0])
  (place / os.fsdecode(b"\xff\x1b.png")).write_bytes(b"no image")
  (place / "circle.png").symlink_to("circle.png")
  (place / "up").symlink_to(place)
  (place / "nowhere.png").symlink_to("absent.png")


def _args(tmp_path, steps):
  fields = {
    "data.name": "folder",
    "data.dir": tmp_path / "images",
    "data.eval_split": "val",
    "data.check": True,
    "data.on_bad_image": "replace",
    "model.num_classes": 2,
    "plan.base_batch": 8,
    "plan.num_steps": steps,
  }
  return [
    "--config=tests/tiny_config.py",
    f"--workdir={tmp_path / 'run'}",
    *(f"--config.{name}={value}" for name, value in fields.items()),
  ]


def test_odd_names_and_damaged_files(run_main, tmp_path):
  _images(tmp_path / "images")
  first = run_main(_args(tmp_path, 10))
  assert "25 images for training" in first.stdout
  assert "caf\\udce9" in first.stdout
  assert "new\\nline\\x1b[31m" in first.stdout
  assert "\x1b" not in first.stdout + first.stderr
  assert first.stderr == ""

  run = tmp_path / "run"
  starts = (run / "starts.jsonl").read_bytes()
  (run / "starts.jsonl").write_bytes(b"\xff junk\n[]\n" + starts)
  metrics = (run / "metrics.jsonl").read_bytes()
  (run / "metrics.jsonl").write_bytes(b"{\xfe\n" + metrics)
  (run / "bad_images.jsonl").write_bytes(b"null\n\xff\n")
  (run / "config.json").write_bytes(b"\xff{")
  (run / "running.json").write_text('{"host": 1, "process": [], "time": "x"}')
  shutil.rmtree(run / "tensorboard")
  (run / "tensorboard").write_text("a file")

  second = run_main(_args(tmp_path, 20))
  assert "resuming at step 10 of 20" in second.stdout
  warnings = [x for x in second.stdout.splitlines() if "warning: " in x]
  for name, text in (
    ("starts.jsonl", "left out 2 lines that can't be read"),
    ("metrics.jsonl", "left out 1 line that can't be read"),
    ("config.json", "can't be read, and is written anew"),
    ("tensorboard", "is no folder: nothing is written for TensorBoard"),
  ):
    (line,) = [x for x in warnings if f"/{name}" in x]
    assert text in line
  assert second.stderr == ""
  records = (run / "metrics.jsonl").read_text().splitlines()
  train = [r for r in map(json.loads, records) if r["kind"] == "train"]
  assert [record["step"] for record in train] == list(range(1, 21))
  assert json.loads((run / "config.json").read_text())["seed"] == 0
  assert len((run / "starts.jsonl").read_text().splitlines()) == 2
