"""The files of the CNNs that MobileViT is measured against."""

import jax
import numpy as np
import pytest

from benchmarks import nets
from mobilevit_jax.export import contract
from mobilevit_jax.export import litert
from mobilevit_jax.export import onnx
from mobilevit_jax.export.litert import quantise
from tests.export.random_model import random_images

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", ("mobilenetv2", "mobilenetv3"))
def test_files_answer_as_jax(name):
  model = nets.random(name)
  images = random_images(6, 64)
  exact = np.asarray(jax.jit(model.__call__)(images))
  assert np.ptp(exact) > 0.1
  fp32, int8 = (contract.Options(p, size=64) for p in ("fp32", "int8"))
  for module in (litert, onnx):
    content = module.build(model, fp32, "")
    found = module.run(content, images, fp32)["logits"]
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())
  content = litert.build(model, int8, "", images)
  found = litert.run(content, images, int8)["logits"]
  assert 0 < quantise.relative_error(found, exact) < 0.2
  assert litert.delegated(content) == (1, {})
