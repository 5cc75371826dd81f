"""Training steps of ours are PyTorch's, beside timm and transformers."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")
pytestmark = pytest.mark.parity

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(module, *arguments):
  """What one of the programs prints."""
  # In a process of its own: JAX takes float64 for the whole process.
  done = subprocess.run(
    [sys.executable, "-m", f"tests.parity.{module}", *arguments],
    cwd=ROOT,
    env={**os.environ, "JAX_ENABLE_X64": "1"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize(
  ("name", "steps"), (("mobilevit_xxs", 50), ("mobilevitv2_050", 30))
)
def test_float64_trajectory(record, name, steps):
  result = run(
    "trajectory", "--dtype=float64", f"--name={name}", f"--steps={steps}"
  )
  for what in ("loss", "params", "batch_stats", "ema"):
    record(f"{name}, {steps} steps in float64: {what}", result[what])
  assert result["types"] == ["float64"]
  assert result["steps"] == steps
  assert result["last_loss"] < 0.5 * result["first_loss"]  # it learns
  assert result["loss"] <= 1e-10
  for what in ("params", "batch_stats", "ema"):
    assert result[what] <= 1e-8, what


def test_float64_trajectory_of_a_segmenter(record):
  pytest.importorskip("transformers")
  result = run("segmentation")
  for what in ("loss", "params", "batch_stats"):
    record(f"segmenter, 30 steps in float64: {what}", result[what])
  assert result["types"] == ["float64"]
  assert result["last_loss"] < 0.5 * result["first_loss"]  # it learns
  assert result["loss"] <= 1e-9
  for what in ("params", "batch_stats"):
    assert result[what] <= 1e-7, what
