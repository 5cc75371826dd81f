"""Detection through the real command: a set of squares is learnt."""

import csv
import json
import re

import cv2
import numpy as np
import pytest

from mobilevit_jax import predict
from mobilevit_jax import report
from mobilevit_jax.tasks import average_precision
from tests import runs
from tests import tiny_detect_config
from tests.report import browser

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.slow

SECTIONS = (
  *("curves", "recall", "classes", "sizes", "images", "calibration"),
  *("data", "configuration"),
)


def write_set(root):
  """Eight pictures to train on and forty to judge by: a light square each."""
  rng = np.random.default_rng(0)
  (root / "classes.txt").parent.mkdir(parents=True)
  (root / "classes.txt").write_text("square\nbar\n")
  for split, count in (("train", 8), ("val", 40)):
    (root / "images" / split).mkdir(parents=True)
    (root / "labels" / split).mkdir(parents=True)
    for index in range(count):
      image = rng.integers(0, 60, (48, 64, 3)).astype(np.uint8)
      x, y = rng.integers(2, (36, 20))
      image[y : y + 24, x : x + 24] = 240
      cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
      row = (0, (x + 12) / 64, (y + 12) / 48, 24 / 64, 24 / 48)
      (root / "labels" / split / f"{index}.txt").write_text(
        " ".join(map(str, row))
      )


@pytest.fixture(scope="module")
def run(tmp_path_factory, start_main_module):
  """A run's folder, the arguments of it, and the last line that it printed."""
  root = tmp_path_factory.mktemp("detect")
  write_set(root / "set")
  args = [
    "--config=tests/tiny_detect_config.py",
    f"--workdir={root / 'run'}",
    f"--config.data.dir={root / 'set'}",
  ]
  stdout = start_main_module(args, devices=2).finish().stdout
  return root, args, stdout.splitlines()[-1]


def test_squares_are_learnt(run):
  root, _, line = run
  records = runs.records(root / "run")
  train = [record for record in records if record["kind"] == "train"]
  assert train[-1]["loss"] < train[0]["loss"] / 3
  assert {"box_loss", "class_loss", "positives"} <= train[0].keys()
  found = [record for record in records if "images" in record][-1]
  assert found["ema_map_50"] > 0.5, found
  assert found["ema_ap_square"] == found["ema_map"]
  assert found["ema_ap_bar"] == -1
  assert line.startswith(f"final: map={found['ema_map']:.4f} map_50=")


def test_the_report_says_what_the_run_recorded(run, tmp_path):
  workdir = run[0] / "run"
  text = report.write(workdir, which="ema").read_text()
  last = [r for r in runs.records(workdir) if "images" in r][-1]
  assert f"<b>{last['ema_map']:.1%}</b> mean average precision" in text
  for name in average_precision.NAMES:
    value = last[f"ema_{name}"]
    shown = "-" if value < 0 else f"{value:.1%}"
    assert re.search(rf">{name}</th>\s*<td>{shown}</td>", text), name
  with (workdir / "report/predictions.csv").open() as file:
    rows = [*csv.DictReader(file)]
  assert [int(row["objects"]) for row in rows] == 40 * [1]
  if browser.CHROMIUM is None:
    return
  for dark in (False, True):
    seen, console = browser.browse(text, tmp_path, width=500, dark=dark)
    assert console == [] and seen["errors"] == seen["refused"] == []
    assert {*SECTIONS} - {*seen["sections"]} <= {"images"}  # if all are right
    assert seen["wide"] <= 0
    assert all(seen["images"])


def test_one_and_two_processes_evaluate_alike(run, start_processes):
  _, args, line = run
  for process in start_processes(2, [*args, "--mode=eval"]):
    assert process.finish().stdout.splitlines()[-1] == line


def test_batches_and_devices_give_the_same_twelve_numbers(run):
  root, _, _ = run
  config = tiny_detect_config.get_config()
  config.data.dir = str(root / "set")
  config.weights.source = str(root / "run")
  (_, first), *others = runs.meters(config)
  expected = first.result()
  assert expected["map_50"] > 0.5
  for name, meter in others:
    found = meter.result()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
      assert found[key] == pytest.approx(value, abs=1e-4), (name, key)


def test_predictions_are_drawn_and_written(run, capsys):
  root, _, _ = run
  image = root / "set" / "images" / "val" / "1.png"
  (root / "b").mkdir()
  (root / "b" / "x.png").write_bytes(image.read_bytes())
  code = predict.main(
    [
      f"--weights={root / 'run'}",
      f"--draw={root / 'drawn'}",
      f"--coco={root / 'results.json'}",
      "--json",
      *map(str, (image, root / "b" / "x.png")),
    ]
  )
  assert code == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  first = lines[0]["top"][0]
  assert first["label"] == "square" and first["score"] > 0.3
  row = (root / "set" / "labels" / "val" / "1.txt").read_text().split()
  cx, cy, w, h = map(float, row[1:])
  truth = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
  np.testing.assert_allclose(first["box"], truth, atol=0.12)
  results = json.loads((root / "results.json").read_text())
  best = max(results, key=lambda one: one["score"])
  assert {one["image_id"] for one in results} == {1, "x"}
  assert best["category_id"] == 1
  x, y, w, h = best["bbox"]
  box = np.multiply(first["box"], (64, 48, 64, 48))
  np.testing.assert_allclose((x, y, x + w, y + h), box, atol=0.01)
  picture = cv2.imread(str(root / "drawn" / "1.png.png"))
  assert picture.shape == (64, 64, 3)
