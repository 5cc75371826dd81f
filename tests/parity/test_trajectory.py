"""Fifty training steps of ours are timm's and PyTorch's, in float64."""

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


def test_float64_trajectory(record):
  # In a process of its own: JAX takes float64 for the whole process.
  done = subprocess.run(
    [sys.executable, "-m", "tests.parity.trajectory", "--dtype=float64"],
    cwd=ROOT,
    env={**os.environ, "JAX_ENABLE_X64": "1"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout)
  for name in ("loss", "params", "batch_stats", "ema"):
    record(f"50 steps in float64, PyTorch: {name}", result[name])
  assert result["types"] == ["float64"]
  assert result["steps"] == 50
  assert result["last_loss"] < 0.5 * result["first_loss"]  # it learns
  assert result["loss"] <= 1e-10
  for name in ("params", "batch_stats", "ema"):
    assert result[name] <= 1e-8, name
