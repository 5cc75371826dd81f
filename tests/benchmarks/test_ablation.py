"""The files of `benchmark ablation`; it says nothing about speed here."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import ablation
from mobilevit_jax.export import litert
from mobilevit_jax.export.litert import flatbuffer
from tests.export.random_model import random_images

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")


def test_steps_are_the_same_net_and_fall_out_of_xnnpack_as_said():
  files = ablation.files("xxs", 64)
  images = random_images(1, 64)
  logits = {
    step: flatbuffer.interpreter(content).get_signature_runner()(images=images)[
      "logits"
    ]
    for step, content in files.items()
  }
  exact = logits["float32"]
  for step in ("BatchNorm not folded", "unfold by six axes"):
    np.testing.assert_allclose(logits[f"float32, {step}"], exact, atol=1e-4)
  assert np.any(logits["float32, no products, no softmax"] != exact)
  outside = {step: litert.delegated(data)[1] for step, data in files.items()}
  left = {step for step, kinds in outside.items() if kinds}
  assert left == {
    "int8 everything",
    "+ attention, any zero points",
    "the same with HARD_SWISH for SiLU",
  }
  assert outside["+ attention, any zero points"].keys() == {"BATCH_MATMUL"}


def test_measures_as_typed(tmp_path, capsys):
  out = tmp_path / "ablation.json"
  words = ["ablation", "--model=mobilenetv2", "--size=32", "--rounds=1"]
  assert benchmark.main([*words, f"--out={out}"]) == 0
  results = json.loads(out.read_text())
  assert results[0]["step"] == "float32"
  assert results[0]["to_fp32"] == 1
  assert all(result["cpu_median"] > 0 for result in results)
  assert capsys.readouterr().out.count("int8 everything") == 1
