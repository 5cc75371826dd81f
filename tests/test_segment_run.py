"""Segmentation through the real main: it learns, resumes, evaluates alike."""

import csv
import json
import re

import numpy as np
from PIL import Image
import pytest

from benchmarks.random_weights import randomize
from mobilevit_jax import models
from mobilevit_jax import predict
from mobilevit_jax import report
from mobilevit_jax import weights
from mobilevit_jax.tasks import segment
from tests import runs
from tests import tiny_masks
from tests import tiny_segment_config
from tests.report import browser

pytestmark = pytest.mark.slow

SECTIONS = [
  *("curves", "classes", "confusion", "images"),
  *("data", "configuration"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("masks")
  tiny_masks.write(path)
  return path


def _args(folder, workdir, protocol="stretch", *more):
  return [
    f"--config=tests/tiny_segment_config.py:{protocol}",
    f"--workdir={workdir}",
    f"--config.data.dir={folder}",
    *more,
  ]


@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory, start_main_module):
  workdir = tmp_path_factory.mktemp("run")
  args = _args(folder, workdir, "aspect")
  return workdir, start_main_module(args, devices=2).finish().stdout


def test_it_learns_and_says_the_iou_of_each_class(reference):
  workdir, stdout = reference
  records = runs.records(workdir)
  train = [r for r in records if r["kind"] == "train"]
  assert train[-1]["loss"] < 0.7 * train[0]["loss"]
  last = next(r for r in reversed(records) if "images" in r)
  assert {"ema_iou_background", "ema_iou_disc", "ema_miou"} <= last.keys()
  mean = (last["ema_iou_background"] + last["ema_iou_disc"]) / 2
  assert last["ema_miou"] == pytest.approx(mean)
  assert last["ema_iou_disc"] > 0.2
  assert re.match(
    r"final: miou=0\.\d{4} pixel_accuracy=.* images=5",
    stdout.splitlines()[-1],
  )
  assert json.loads((workdir / "data_check.json").read_text())["classes"]


def test_the_report_says_what_the_run_recorded(reference, tmp_path):
  workdir, _ = reference
  assert tiny_segment_config  # it makes the net known
  text = report.write(workdir, which="ema").read_text()
  last = next(r for r in reversed(runs.records(workdir)) if "images" in r)
  assert f"<b>{last['ema_miou']:.1%}</b> mean IoU over 2 classes in 5" in text
  for name in ("background", "disc"):
    share = last[f"ema_iou_{name}"]
    assert f'data-v="{share:.6f}" style' in text, name
  with (workdir / "report/predictions.csv").open() as file:
    rows = [*csv.DictReader(file)]
  assert len(rows) == 5 and {"miou", "iou_disc"} <= rows[0].keys()
  if browser.CHROMIUM is None:
    return
  for dark in (False, True):
    seen, console = browser.browse(text, tmp_path, width=500, dark=dark)
    assert console == [] and seen["errors"] == seen["refused"] == []
    assert seen["sections"] == SECTIONS
    assert seen["wide"] <= 0
    assert len(seen["images"]) == 15 and min(seen["images"]) > 0


def test_predict_draws_what_the_run_was_judged_by(reference, folder, tmp_path):
  workdir, _ = reference
  images = sorted((folder / "images/val").iterdir())

  def iou(*more):
    code = predict.main(
      [
        *(f"--weights={workdir}", "--which=ema", f"--draw={tmp_path}"),
        *more,
        *map(str, images),
      ]
    )
    assert code == 0
    common = either = 0
    for path in images:
      with Image.open(tmp_path / f"{path.name}.mask.png") as picture:
        found = np.asarray(picture) == 1
      with Image.open(folder / "masks/val" / path.name) as picture:
        truth = np.asarray(picture)
      common += np.sum(found & (truth == 1))
      either += np.sum((found | (truth == 1)) & (truth != segment.IGNORED))
    return common / either

  last = next(r for r in reversed(runs.records(workdir)) if "images" in r)
  assert iou() == pytest.approx(last["ema_iou_disc"], abs=1e-6)
  assert iou("--protocol=stretch") != iou("--protocol=slide")


def test_killed_and_resumed_it_gives_the_same_bits(
  reference, folder, start_main, tmp_path
):
  args = _args(folder, tmp_path, "aspect")
  killed = start_main(args, devices=2)
  saved = tmp_path / "checkpoints" / "10" / "_CHECKPOINT_METADATA"
  killed.wait_until(saved.exists, "checkpoint 10")
  killed.kill()
  resumed = start_main(args, devices=2).finish()
  assert re.search(r"resuming at step (10|15) of 20", resumed.stdout)
  runs.assert_same(tmp_path, reference[0])


def test_two_processes_evaluate_alike(reference, folder, start_processes):
  workdir, stdout = reference
  args = [*_args(folder, workdir, "aspect"), "--mode=eval"]
  for process in start_processes(2, args):
    assert process.finish().stdout.splitlines()[-1] == stdout.splitlines()[-1]


def test_batches_and_devices_change_no_pixel_in_a_million(tmp_path):
  tiny_masks.write(tmp_path, train=1, val=80)
  config = tiny_segment_config.get_config()
  config.data.dir = str(tmp_path)
  config.model.num_classes = 2
  # Weights that find both classes everywhere, and so differ by rounding first.
  net = randomize(models.abstract_model(**config.model.to_dict()))
  config.weights.source = str(tmp_path / "net.safetensors")
  weights.save_weights(net, config.weights.source)
  (_, first), *others = runs.meters(config)
  expected, iou = first.counts, first.result()
  assert expected.min() > 0
  for name, meter in others:
    moved = np.abs(meter.counts - expected).sum() / 2
    assert moved <= 1e-6 * expected.sum(), name
    assert meter.result()["miou"] == pytest.approx(iou["miou"], abs=1e-5)
