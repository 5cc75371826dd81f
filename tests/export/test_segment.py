"""Segmenters in LiteRT, ONNX and StableHLO, beside the net in JAX."""

import numpy as np
import pytest

from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import litert
from mobilevit_jax.export import verify
from tests.export.random_model import random_model

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", params=(False, True), ids=("half", "aligned"))
def model(request):
  return random_model(
    "mobilevit_xxs",
    head="deeplabv3",
    output_stride=16,
    aspp_width=32,
    aligned=request.param,
    auxiliary=request.param,
  )


@pytest.mark.parametrize("name", ("litert", "onnx", "stablehlo"))
@pytest.mark.parametrize("output", ("logits", "mask"))
def test_every_format_answers_at_the_input_size(model, name, output):
  images = verify.built_in_images(64, 2)
  options = contract.Options(size=64, output=output)
  result = formats.export(model, name, options, {}, images)
  assert result.findings.rank <= contract.MAX_RANK
  assert result.comparison.agreement >= 0.999


def test_masks_are_bytes(model):
  images = verify.built_in_images(64, 1)
  options = contract.Options(size=64, output="mask")
  for name in ("litert", "onnx"):
    row = formats.FORMATS[name]
    content = row.build(model, options, "{}")
    inputs = verify.as_input(images, options)
    (found,) = row.run(content, inputs, options).values()
    assert (found.dtype, found.shape) == (np.uint8, (1, 64, 64))


def test_eight_bits_leave_the_logits_in_float32(model):
  images = verify.built_in_images(64, 4)
  options = contract.Options("int8", size=64, output="mask")
  inputs = verify.as_input(images, options)
  content = litert.build(model, options, "", inputs)
  kind = litert.flatbuffer.schema().TensorType
  types = {
    tensor.name.decode(): tensor.type
    for tensor in litert.read(content).subgraphs[0].tensors
  }
  assert types["classifier/kernel"] == types["aspp/project/conv"] == kind.INT8
  for name in ("classifier", "classifier/resize"):
    assert types[name] == kind.FLOAT32, name
  exact = contract.Options(size=64, output="mask")
  (expected,) = litert.run(
    litert.build(model, exact, ""), inputs, exact
  ).values()
  (found,) = litert.run(content, inputs, options).values()
  assert 0.8 < np.mean(found == expected) < 1


def test_a_size_that_the_stride_does_not_divide_is_refused(model):
  with pytest.raises(ValueError, match=r"--size=72 must be a multiple .* 16"):
    formats.check_options("onnx", contract.Options(size=72), model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("output", ("logits", "mask"))
def test_coreml_has_the_outputs_and_their_shapes(model, output):
  pytest.importorskip("coremltools")
  options = contract.Options(size=64, output=output)
  images = verify.built_in_images(64, 1)
  result = formats.export(model, "coreml", options, {}, images)
  shape = (1, 64, 64, 7) if output == "logits" else (1, 64, 64)
  assert result.findings.outputs == {output: shape}
  assert result.comparison is None  # it runs on Apple's systems alone
