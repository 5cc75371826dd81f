"""The arithmetic of `benchmark input`, and one short run of it."""

import json
import pathlib
import re
import subprocess
import sys
import time

import cv2
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import clock
from benchmarks import photographs

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_medians_of_rates_and_their_ratios():
  def found(cpu, torch_cpu):
    return {
      "decode": clock.Rate(100, 1.0, 0.5),
      "mobilevit_jax decode": clock.Rate(100, 1.0, 0.4),
      "mobilevit_jax": clock.Rate(100, 2.0, cpu),
      "torchvision": clock.Rate(100, 4.0, torch_cpu),
    }

  rounds = [found(0.5, 1.5), found(0.625, 9.0), found(100.0, 0.01)]
  results = clock.medians(rounds)
  assert results["mobilevit_jax"] == {
    "images_per_second": 50,
    "images_per_cpu_second": 160,
  }
  # The bound is the faster decoding, 250 images per CPU-second.
  ratios = clock.ratios(results)
  assert ratios["decode"] == pytest.approx(160 / 250)
  assert ratios["torchvision"] == pytest.approx(160 * 1.5 / 100)
  del results["torchvision"]
  assert clock.ratios(results).keys() == {"decode"}


def test_laps_part_a_threads_time_by_stage():
  laps = clock.Laps()
  time.sleep(0.02)
  laps.lap("sleep")
  deadline = time.thread_time() + 0.02
  while time.thread_time() < deadline:
    pass
  laps.lap("work")
  laps.start()
  laps.lap("sleep")
  rates = laps.rates(10)
  assert rates.keys() == {"sleep", "work"}
  assert rates["sleep"].wall >= 0.02 and rates["work"].cpu >= 0.02
  assert rates["sleep"].cpu < rates["work"].cpu
  assert rates["work"].per_cpu_second == 10 / rates["work"].cpu


def test_clock_counts_cpu_time():
  begin = clock.now()
  deadline = time.process_time() + 0.05
  while time.process_time() < deadline:
    pass
  end = clock.now()
  assert end[1] - begin[1] > 0.04
  assert end[0] > begin[0]


def test_synthetic_files_weigh_what_photographs_do(tmp_path):
  photographs.write(tmp_path, 4)
  files = sorted(tmp_path.rglob("*.jpg"))
  assert len(files) == 4
  assert len({file.read_bytes() for file in files}) == 4
  for file in files:
    assert cv2.imread(str(file)).shape == (375, 500, 3)
    assert 70e3 < file.stat().st_size < 150e3


def test_command_measures_a_configured_folder(tmp_path):
  photographs.write(tmp_path, 6)
  args = [
    "--config=configs/imagenet.py:xs",
    "--config.data.name=folder",
    f"--config.data.dir={tmp_path}",
    "--size=64",
    "--batch=8",
    "--images=12",
    "--rounds=1",
    f"--out={tmp_path}/result.json",
  ]
  finished = subprocess.run(
    [sys.executable, "-m", "benchmarks", "input", *args],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert "mobilevit_jax / decode, per CPU-second: " in finished.stdout
  result = json.loads((tmp_path / "result.json").read_text())
  assert (result["files"], result["images"], result["size"]) == (6, 16, 64)
  ours = {"read", "decode", "crop+resize", "batch", "transfer"}
  names = {"decode", "mobilevit_jax", *(f"mobilevit_jax {s}" for s in ours)}
  assert names <= result["results"].keys()
  assert all(
    rate > 0 for row in result["results"].values() for rate in row.values()
  )
  for name in names:
    assert f"{name.split(' ')[-1]} " in finished.stdout


# How ml_collections reads a configuration, on Python 3.11.
@pytest.mark.parametrize(
  ("args", "message"),
  [
    ([], "give --config=FILE, --synthetic=N, or both"),
    (["--synthetic=0"], "--synthetic=0 must be at least 1"),
    (["--synthetic=1", "--num_workers=-1"], "--num_workers=-1 must be at"),
    (["--synthetic=1", "--out=none/x.json"], "its folder doesn't exist"),
    (["--config=none.py"], "--config=none.py: .*No such file"),
    (
      ["--config=configs/digits.py", "--config.data.nam=x"],
      "'nam' Did you mean",
    ),
    (
      ["--config=configs/digits.py", "--config.data.name=folder"],
      "data_dir=None must be the folder to read",
    ),
  ],
)
def test_bad_command_is_one_clear_line(args, message, capsys, monkeypatch):
  monkeypatch.chdir(ROOT)
  assert benchmark.main(["input", *args]) == 1
  error = capsys.readouterr().err
  assert error.startswith("benchmarks: ") and error.count("\n") == 1
  assert re.search(message, error)


def test_unknown_flags_are_refused(capsys):
  with pytest.raises(SystemExit):
    benchmark.main(["input", "--syntetic=3"])
  assert "unrecognized arguments: --syntetic=3" in capsys.readouterr().err
