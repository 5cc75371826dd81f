"""Peak FLOP/s by device, and the FLOPs of a train step."""

import subprocess
import sys

import pytest

from mobilevit_jax import flops
from mobilevit_jax import summary


@pytest.mark.parametrize(
  ("kind", "bfloat16", "float32"),
  [
    ("TPU v5 lite", 197e12, 197e12),
    ("TPU v5", 459e12, 459e12),
    ("NVIDIA A100-SXM4-40GB", 312e12, 156e12),
    ("NVIDIA A100 80GB PCIe", 312e12, 156e12),
    ("NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12),
    ("NVIDIA H100 PCIe", 756e12, 378e12),
    ("NVIDIA L4", 121e12, 60.5e12),
    ("NVIDIA L40S", 362e12, 183e12),
    ("cpu", None, None),
    ("TPU v5x", None, None),
    ("NVIDIA L400", None, None),
    ("", None, None),
  ],
)
def test_peak(kind, bfloat16, float32):
  assert flops.peak_flops(kind) == bfloat16
  assert flops.peak_flops(kind, "float32") == float32
  assert flops.peak_flops(kind, "float64") is None


def test_train_flops_of_the_papers_net():
  # Paper table: MobileViT-S has about 2.0 G multiply-adds at 256 px.
  macs = summary.forward_macs("mobilevit_s", 256, 256)
  assert macs == pytest.approx(2.0e9, rel=0.03)
  assert flops.train_flops(macs, 8) == 8 * 3 * 2 * macs


def test_counting_ignores_how_the_depthwise_runs():
  counts = {
    summary.forward_macs("mobilevit_xxs", 64, 96, depthwise=kind)
    for kind in ("auto", "conv", "shift")
  }
  assert len(counts) == 1


def test_it_loads_nothing():
  code = "import sys, mobilevit_jax.flops; print('jax' in sys.modules)"
  out = subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  )
  assert out.stdout.split() == ["False"]
