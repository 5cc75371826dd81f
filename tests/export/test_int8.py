"""Files of eight bits, run by LiteRT and held against float32's."""

import numpy as np
import pytest

from mobilevit_jax.export import contract
from mobilevit_jax.export import litert
from mobilevit_jax.export.litert import flatbuffer
from mobilevit_jax.export.litert import int8
from mobilevit_jax.export.litert import quantise
from tests.export.random_model import random_images
from tests.export.random_model import random_model

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")

SIZE = 64


def options(precision="int8", **fields):
  return contract.Options(precision, **{"size": SIZE, **fields})


@pytest.fixture(scope="module")
def model():
  return random_model("mobilevit_xxs", depthwise="auto")


@pytest.fixture(scope="module")
def images():
  """Half to calibrate on, half to compare on."""
  return random_images(16, SIZE)


@pytest.fixture(scope="module")
def exact(model, images):
  fp32 = options("fp32")
  return litert.run(litert.build(model, fp32, ""), images[8:], fp32)["logits"]


@pytest.fixture(scope="module")
def content(model, images):
  return litert.build(model, options(), "", images[:8])


def _tensors(content):
  (subgraph,) = litert.read(content).subgraphs
  return {tensor.name.decode(): tensor for tensor in subgraph.tensors}


def test_is_close_to_float32(content, images, exact):
  found = litert.run(content, images[8:], options())["logits"]
  assert found.dtype == np.float32
  assert 0 < quantise.relative_error(found, exact) < 0.1


def test_the_order_of_the_calibration_images_does_not_matter(
  model, images, content
):
  order = np.random.default_rng(0).permutation(8)
  assert litert.build(model, options(), "", images[:8][order]) == content


def test_other_calibration_images_give_another_file(model, images, content):
  assert litert.build(model, options(), "", images[8:]) != content


def test_xnnpack_takes_all_of_it(content):
  findings = litert.inspect(content)
  assert findings.notes == (
    "XNNPACK partitions: 1; outside them: nothing",
    "int8 products of attention: 18, of which 0 have a second operand whose "
    "zero isn't at 0 (XNNPACK would not take them)",
    "operators that are slow in eight bits: none",
  )


def test_keys_and_values_have_their_zero_at_0(content):
  tensors = _tensors(content)
  for part, symmetric in (("key", True), ("value", True), ("query", False)):
    zeros = {
      int(tensor.quantization.zeroPoint[0])
      for name, tensor in tensors.items()
      if name.endswith(f"attention/{part}/heads")
    }
    assert (zeros == {0}) == symmetric, part


def test_attention_can_stay_in_float32(model, images, exact):
  float_attention = options(attention="float")
  content = litert.build(model, float_attention, "", images[:8])
  assert "int8 products of attention: 0" in litert.inspect(content).notes[1]
  kind = flatbuffer.schema().TensorType
  tensors = _tensors(content)
  assert tensors["stage3/1/global_rep/0/attention/scores"].type == kind.FLOAT32
  assert tensors["stage3/1/global_rep/0/ffn_in/linear"].type == kind.INT8
  found = litert.run(content, images[8:], float_attention)["logits"]
  assert quantise.relative_error(found, exact) < 0.1


def test_dynamic_keeps_activations_in_float32(model, images, exact):
  dynamic = options("int8-dynamic")
  content = litert.build(model, dynamic, "")
  found = litert.run(content, images[8:], dynamic)["logits"]
  assert 0 < quantise.relative_error(found, exact) < 0.1
  whole = litert.build(model, options("fp32"), "")
  assert len(content) < 0.4 * len(whole)
  assert "outside them: nothing" in litert.inspect(content).notes[0]


def test_odd_maps_pixels_batches_and_probabilities(model):
  pixels = np.uint8(random_images(6, 96) * 255)
  fields = {"size": 96, "input": "uint8", "output": "probabilities", "batch": 2}
  int8, fp32 = (options(precision, **fields) for precision in ("int8", "fp32"))
  content = litert.build(model, int8, "", pixels)
  # From unsigned to signed bytes, which is next to nothing.
  assert "outside them: 1 QUANTIZE" in litert.inspect(content).notes[0]
  found = litert.run(content, pixels, int8)["probabilities"]
  exact = litert.run(litert.build(model, fp32, ""), pixels, fp32)
  np.testing.assert_allclose(found, exact["probabilities"], atol=0.02)


def test_feature_pyramid(model, images):
  int8, fp32 = (options(p, output="features") for p in ("int8", "fp32"))
  content = litert.build(model, int8, "", images[:8])
  found = litert.run(content, images[8:], int8)
  exact = litert.run(litert.build(model, fp32, ""), images[8:], fp32)
  assert found.keys() == exact.keys()
  for stage, value in exact.items():
    assert quantise.relative_error(found[stage], value) < 0.1, stage


def test_without_images_to_calibrate_on_there_is_no_file(model):
  with pytest.raises(ValueError, match="needs --calibration_images"):
    litert.build(model, options(), "")


def test_a_value_that_is_no_number_is_refused(images):
  broken = images[:2, :16, :16].copy()
  broken[1, 0, 0] = np.nan
  with pytest.raises(contract.ExportError, match="a/conv is NaN or infinite"):
    quantise.calibrate(_small_net, broken)


def _small_net(ops):
  rng = np.random.default_rng(0)
  x = ops.input((1, 16, 16, 3))
  for name in ("a", "b", "c"):
    kernel = rng.normal(0, 0.3, (3, 3, x.shape[-1], 8)).astype(np.float32)
    x = ops.silu(ops.conv(x, kernel, None, f"{name}/conv"), f"{name}/silu")
  kernel = rng.normal(size=(8, 5)).astype(np.float32)
  return {"logits": ops.linear(ops.pool(x, "pool"), kernel, kernel[0, :5], "d")}


def test_layer_errors_name_the_layer_that_hurts(images):
  small = images[:4, :16, :16]
  ranges = dict(quantise.calibrate(_small_net, small))
  low, high = ranges["b/conv"]
  ranges["b/conv"] = low * 50, high * 50
  errors = quantise.layer_errors(_small_net, ranges, small)
  assert errors == sorted(errors, key=lambda item: -item.error)
  assert {item.layer for item in errors} == {"images", "a", "b", "c", "d"}
  assert errors[0].layer == "b"
  assert all(0 < item.error < errors[0].error / 2 for item in errors[1:])


@pytest.mark.parametrize(
  ("low", "high"), ((-1, 3), (0, 6), (-5, -1), (2, 7), (0, 0), (-1e-30, 1e-30))
)
def test_a_grid_holds_zero_and_its_range(low, high):
  for symmetric in (False, True):
    grid = int8.grid(low, high, symmetric=symmetric)
    assert -128 <= grid.zero <= 127
    assert grid.zero == 0 or not symmetric
    ends = [grid.scale * (n - grid.zero) for n in (-128, 127)]
    assert ends[0] <= low + grid.scale / 2
    assert ends[1] >= high - grid.scale / 2


@pytest.mark.parametrize("axis", (0, 3))
def test_weights_are_within_half_a_step(axis):
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(5, 3, 3, 6)) * 10.0 ** rng.integers(-3, 3, 6)
  kernel = np.moveaxis(kernel, 3, axis).astype(np.float32)
  np.moveaxis(kernel, axis, 0)[1] = 0  # a channel of nothing
  values, scales = int8.quantise_weights(kernel, axis)
  assert values.dtype == np.int8
  assert np.abs(values).max() == 127
  back = np.moveaxis(np.float64(values), axis, -1) * scales
  difference = np.abs(back - np.moveaxis(kernel, axis, -1))
  assert np.all(difference <= scales * 0.5001)
