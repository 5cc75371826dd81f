"""`benchmark train --against=timm` runs, and both make the same step."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.parity


@pytest.mark.slow
def test_against_timm(tmp_path):
  pytest.importorskip("timm")
  out = tmp_path / "train.json"
  flags = "--variant=xxs --size=64 --batch=4 --steps=1 --rounds=2"
  done = subprocess.run(
    [
      *(sys.executable, "-m", "benchmarks", "train"),
      *(*flags.split(), "--against=timm", f"--out={out}"),
    ],
    env={**os.environ, "XLA_FLAGS": ""},  # one device
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())
  ours, theirs = found["jax"], found["timm_eager"]
  for clock in ("wall", "cpu"):
    ratio = {"wall": "step_seconds", "cpu": "step_cpu_seconds"}[clock]
    assert found["ratio"]["timm_eager"][clock] == pytest.approx(
      ours[ratio] / theirs[ratio]
    )
  # Both begin near the loss of guessing among 1000 classes.
  assert ours["first_loss"] == pytest.approx(6.9, abs=0.4)
  assert theirs["first_loss"] == pytest.approx(6.9, abs=0.4)
  assert "jax / timm_eager:" in done.stdout
