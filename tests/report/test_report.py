"""A real run's report: numbers as recorded, names escaped, in a browser."""

import csv
import dataclasses
from html.parser import HTMLParser
import io
import json
import pathlib
import re
import shutil

import cv2
import numpy as np
import pytest

from configs import finetune
from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import models
from mobilevit_jax import report
from mobilevit_jax import train
from mobilevit_jax.report import __main__ as command
from mobilevit_jax.report import document
from mobilevit_jax.tasks import classify
from tests import tiny
from tests.report import browser

CLASSES = ("<script>&amp;", "a \"b\" 'c'", "花 роза")
SECTIONS = (
  "curves",
  "classes",
  "confusion",
  "mistakes",
  "calibration",
  "data",
  "configuration",
)


def _write_photos(root):
  """Pictures whose tone tells half of their class."""
  rng = np.random.default_rng(0)
  for split, count in (("train", 12), ("val", 9)):
    for label, name in enumerate(CLASSES):
      folder = root / split / name
      folder.mkdir(parents=True)
      for number in range(count):
        rough = rng.integers(0, 150, (4, 4, 3)) + 40 * label
        pixels = cv2.resize(rough.astype(np.uint8), (90, 70))
        # imwrite does not know every name.
        encoded = cv2.imencode(".png", pixels)[1].tobytes()
        (folder / f"{number} <i>.png").write_bytes(encoded)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """The workdir of a run that a user could have made, with a small net."""
  base = tmp_path_factory.mktemp("report")
  _write_photos(base / "photos")
  config = finetune.get_config("xxs,scratch,32")
  config.model.name = "tiny"
  config.data.dir = str(base / "photos")
  config.plan.update(num_steps=15, sizes=(32,), base_batch=8)
  config.optim.update(lr_batch=None, peak_lr=0.03, warmup_epochs=0.5)
  config.eval.update(batch=8, every_epochs=1)
  config.log_every_steps = 2
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.FAMILIES, "tiny", tiny.FAMILY)
    train.train_and_evaluate(config, base / "run")
    yield base / "run"


@pytest.fixture(scope="module")
def page(run):
  """The page's text."""
  return report.write(run).read_text()


def _evals(run):
  lines = (run / "metrics.jsonl").read_text().splitlines()
  return [r for r in map(json.loads, lines) if r["kind"] == "eval"]


def _rows(run):
  with (run / "report/predictions.csv").open(encoding="utf-8") as file:
    return [*csv.DictReader(file)]


@pytest.mark.parametrize("which", ["ema", "raw", "best", "auto"])
def test_predictions_agree_with_the_recorded_evaluation(run, which, page):
  evals = _evals(run)
  recorded = {
    "ema": evals[-1]["ema_top1"],
    "raw": evals[-1]["raw_top1"],
    "best": max(one["ema_top1"] for one in evals),
  }
  assert len({*recorded.values()}) > 1  # or any weights would do
  text = report.write(run, which=which).read_text()
  top1 = recorded["best" if which == "auto" else which]
  rows = _rows(run)
  assert len(rows) == 27
  hits = sum(row["label"] == row["prediction"] for row in rows)
  assert hits / len(rows) == top1
  assert f"<b>{top1:.1%}</b> of 27 images" in text


def test_predictions_name_files_labels_and_probabilities(run, page):
  report.write(run)
  for row in _rows(run):
    path = pathlib.Path(row["name"])
    assert path.is_file() and path.parent.name == row["label"]
    assert row["prediction"] in CLASSES
    assert 0 <= float(row["of_label"]) <= float(row["probability"]) <= 1


class _Reader(HTMLParser):
  """Sees that elements nest, and gathers ids, text and addresses."""

  void = frozenset({"meta", "img", "br"})

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.text, self.addresses = [], [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self._see(attrs)
    if tag not in self.void:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self._see(attrs)

  def _see(self, attrs):
    for key, value in attrs:
      if key == "id":
        self.ids.append(value)
      if key in ("src", "href", "data", "srcset", "action"):
        self.addresses.append(value)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def test_page_is_one_file_with_names_escaped(page):
  seen = _Reader(page)
  assert tuple(seen.ids) == SECTIONS
  for address in seen.addresses:
    assert address.startswith(("data:image/", "#")), address[:60]
  assert not re.search(r"url\(|@import|https?:", page.lower())
  text = "".join(seen.text)
  for name in CLASSES:
    assert text.count(name) >= 3
  assert page.count("<script") == 1


def test_page_tells_the_run(page, run):
  text = "".join(_Reader(page).text)
  last = _evals(run)[-1]
  assert f"{last['ema_top1']:.2%}" in text and f"{last['ema_loss']:.4f}" in text
  start = json.loads((run / "starts.jsonl").read_text().splitlines()[0])
  assert start["command"] and start["command"] in text
  assert "early_stop.patience" in text
  assert "copies of a file in the split" in text  # the check's table
  assert "data:image/" in page


class _Other(classify.Classify):
  best = "hits"
  shown = ("hits", "top5")


def test_a_task_without_a_row_is_shown_as_it_was_recorded(
  run, tmp_path, monkeypatch
):
  copy = shutil.copytree(run, tmp_path / "run")
  shutil.rmtree(copy / "report", ignore_errors=True)
  for name in ("config.json", "metrics.jsonl"):
    text = (copy / name).read_text().replace('"classify"', '"other"')
    (copy / name).write_text(text.replace("_top1", "_hits"))
  kind = experiment.TASKS["classify"]
  other = dataclasses.replace(kind, make=lambda *_, **__: _Other())
  monkeypatch.setitem(experiment.TASKS, "other", other)
  monkeypatch.delattr(evaluate, "Evaluator")  # nothing is computed
  seen = _Reader(report.write(copy, which="best").read_text())
  assert seen.ids == ["curves", "data", "configuration"]
  text = "".join(seen.text)
  best = max(
    _evals(run),
    key=lambda one: (one["ema_top1"], -one["ema_loss"], one["step"]),
  )
  assert f"{best['ema_top1']:.1%} hits, after {best['step']} training" in text
  assert "hits" in seen.text and "top1" not in seen.text
  assert f"{best['ema_loss']:.4f}" in text
  assert "predictions.csv" not in text
  assert [path.name for path in (copy / "report").iterdir()] == ["index.html"]


def test_several_starts_are_all_shown(run, page):
  starts = run / "starts.jsonl"
  before = starts.read_text()
  more = {"time": 1.7e9, "step": 12, "command": "python again <&>"}
  starts.write_text(before + json.dumps(more) + "\n" + '{"half')
  try:
    text = "".join(_Reader(report.write(run).read_text()).text)
  finally:
    starts.write_text(before)
  assert "python again <&>" in text and "from step 12" in text
  assert "2023-11-14 22:13 UTC" in text


def test_command_writes_it_again_and_says_where(run, page, capsys):
  (run / "report/index.html").unlink()
  assert command.main([str(run), "--mistakes=1"]) == 0
  path = pathlib.Path(capsys.readouterr().out.strip())
  assert path == run / "report/index.html"
  assert path.read_text().count("<img") == 1


@pytest.mark.parametrize("missing", ["config.json", "checkpoints", "photos"])
def test_what_is_missing_is_named_in_one_line(run, tmp_path, capsys, missing):
  copy = shutil.copytree(run, tmp_path / "run")
  args = [str(copy)]
  if missing == "photos":
    args.append(f"--data_dir={tmp_path / 'photos'}")
  elif (copy / missing).is_dir():
    shutil.rmtree(copy / missing)
  else:
    (copy / missing).unlink()
  shutil.rmtree(copy / "report", ignore_errors=True)
  assert command.main(args) == 1
  seen = capsys.readouterr()
  (line,) = seen.err.splitlines()
  assert line.startswith("report: ") and str(tmp_path) in line
  assert not (copy / "report").exists()


def test_a_failed_report_does_not_fail_the_run(run, tmp_path, capsys):
  copy = shutil.copytree(run, tmp_path / "run")
  (copy / "labels.json").write_text("{")
  report.after_training(copy)
  error = capsys.readouterr().err
  assert error.startswith("warning: the run is done, but its report failed")
  assert f"python -m mobilevit_jax.report {copy}" in error
  assert (copy / "checkpoints").is_dir()


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
def test_page_in_a_browser_without_a_network(page, tmp_path):
  seen, console = browser.browse(page, tmp_path)
  assert console == [] and seen["errors"] == []
  assert seen["fetched"] == seen["refused"] == []
  assert tuple(seen["sections"]) == SECTIONS
  assert seen["images"] and min(seen["images"]) > 0
  assert len(seen["charts"]) == 4 and min(seen["charts"]) > 200
  assert seen["before"] == sorted(CLASSES)
  recalls = dict(zip(seen["before"], _recalls(page), strict=True))
  falling = [recalls[name] for name in seen["recall"]]
  assert falling == sorted(falling, reverse=True)
  assert [recalls[name] for name in seen["risen"]] == sorted(falling)


def _recalls(page):
  table = page[page.index('class="sortable"') :]
  values = re.findall(r'data-v="([\d.]+)" style', table)
  return [float(value) for value in values[1::3]]


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
def test_page_fits_a_phone_and_the_dark(page, tmp_path):
  light, _ = browser.browse(page, tmp_path, width=500)
  dark, _ = browser.browse(page, tmp_path, width=500, dark=True)
  for seen in (light, dark):
    assert seen["wide"] <= 0
  brightness = [
    [
      sum(map(int, re.findall(r"\d+", seen[key])[:3]))
      for key in ("ink", "paper")
    ]
    for seen in (light, dark)
  ]
  assert brightness[0][0] + 300 < brightness[0][1]
  assert brightness[1][1] + 300 < brightness[1][0]


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
def test_the_browser_would_tell(page, tmp_path):
  extra = '<img src="http://127.0.0.1:9/x.png"><script>absent()</script>'
  seen, console = browser.browse(page, tmp_path, extra=extra)
  assert "http://127.0.0.1:9/x.png" in seen["refused"]
  assert any("absent" in error for error in seen["errors"])
  assert console and 0 in seen["images"]


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1"])
def test_names_are_no_formulas_in_a_spreadsheet(name):
  lines = [["name", "probability"], [name, "0.5"], ["cat", "-1e-05"]]
  found = [*csv.reader(io.StringIO(document._csv(lines)))]
  assert found == [lines[0], [f"'{name}", "0.5"], lines[2]]
