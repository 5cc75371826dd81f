"""The graphs, run by their own engines and compared with the model in JAX."""

from flax import nnx
import jax
import numpy as np
import pytest

from mobilevit_jax.export import blocks
from mobilevit_jax.export import litert
from mobilevit_jax.export import onnx_graph
from mobilevit_jax.export.litert import flatbuffer
from mobilevit_jax.export.litert import writer
from tests.export.random_model import random_images
from tests.export.random_model import random_model

pytestmark = pytest.mark.export
interpreter = pytest.importorskip("ai_edge_litert.interpreter")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

# (variant, size, output stride); 224 and 96 have odd maps.
# Those of ours that LiteRT's GPU delegate knows, from TensorFlow's
# tensorflow/lite/tools/versioning/gpu_compatibility.cc.
GPU_OPERATORS = {
  "ADD",
  "BATCH_MATMUL",
  "CONCATENATION",
  "CONV_2D",
  "DEPTHWISE_CONV_2D",
  "FULLY_CONNECTED",
  "LOGISTIC",
  "MEAN",
  "MUL",
  "PAD",
  "RELU",
  "RESHAPE",
  "RESIZE_BILINEAR",
  "RSQRT",
  "SOFTMAX",
  "SUB",
  "TRANSPOSE",
}

CASES = (
  ("mobilevit_xxs", 64, 32),
  ("mobilevit_xs", 96, 32),
  ("mobilevit_s", 64, 32),
  ("mobilevit_xxs", 96, 16),
  ("mobilevit_xxs", 64, 8),
  ("mobilevitv2_050", 64, 32),
  ("mobilevitv2_050", 96, 32),
  ("mobilevitv2_050", 96, 8),
  ("mobilevitv3_xxs_l2", 96, 32),
  ("mobilevitv3_050", 96, 32),
)


def _litert(model, images, *, features=False, half=False, pixels=False):
  ops = writer.LiteRTOps(half=half)
  x = ops.input(images.shape, pixels=pixels)
  outputs = blocks.write(model, ops, x, "features" if features else "logits")
  data = ops.serialize(outputs, '{"size": 64}')
  engine = interpreter.Interpreter(model_content=data, num_threads=1)
  return data, engine.get_signature_runner()(images=images)


def _onnx(model, images, *, features=False, half=False, pixels=False):
  ops = onnx_graph.OnnxOps(half=half)
  x = ops.input((1, *images.shape[1:]), pixels=pixels)
  outputs = blocks.write(model, ops, x, "features" if features else "logits")
  data = ops.serialize(outputs, '{"size": 64}')
  engine = onnxruntime.InferenceSession(
    data, providers=["CPUExecutionProvider"]
  )
  names = [output.name for output in engine.get_outputs()]
  results = engine.run(None, {"images": images})
  return data, dict(zip(names, results, strict=True))


def _expected(model, images, *, features=False):
  graphdef, state = nnx.split(model)

  @jax.jit
  def run(state, images):
    net = nnx.merge(graphdef, state)
    return net.features(images) if features else {"logits": net(images)}

  return jax.tree.map(np.asarray, run(state, images))


@pytest.mark.parametrize("write", (_litert, _onnx))
@pytest.mark.parametrize(("name", "size", "stride"), CASES)
def test_equals_jax(write, name, size, stride):
  model = random_model(name, output_stride=stride, depthwise="auto")
  images = random_images(1, size)
  expected = _expected(model, images)
  assert np.ptp(expected["logits"]) > 0.1
  _, found = write(model, images)
  assert found.keys() == expected.keys()
  np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)


@pytest.mark.parametrize("write", (_litert, _onnx))
def test_feature_pyramid_equals_jax(write):
  model = random_model("mobilevit_xxs", output_stride=16, depthwise="auto")
  images = random_images(1, 96)
  expected = _expected(model, images, features=True)
  _, found = write(model, images, features=True)
  assert found.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_allclose(found[key], value, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("write", (_litert, _onnx))
def test_half_precision_is_close_and_half_the_size(write):
  model = random_model("mobilevit_xxs", depthwise="auto")
  images = random_images(1, 64)
  whole, exact = write(model, images)
  half, found = write(model, images, half=True)
  assert len(half) < 0.6 * len(whole)
  assert np.any(found["logits"] != exact["logits"])
  np.testing.assert_allclose(found["logits"], exact["logits"], atol=2e-2)


@pytest.mark.parametrize("write", (_litert, _onnx))
def test_takes_uint8_pixels(write):
  model = random_model("mobilevit_xxs", depthwise="auto")
  pixels = np.uint8(random_images(1, 64) * 255)
  expected = _expected(model, pixels.astype(np.float32) / 255)
  _, found = write(model, pixels, pixels=True)
  np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)


def test_onnx_takes_any_batch():
  model = random_model("mobilevit_xxs", depthwise="auto")
  images = random_images(3, 96)
  _, found = _onnx(model, images)
  expected = _expected(model, images)
  np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)


@pytest.mark.parametrize("write", (_litert, _onnx))
def test_the_same_file_each_time(write):
  model = random_model("mobilevit_xxs")
  images = random_images(1, 64)
  assert write(model, images)[0] == write(model, images)[0]


@pytest.mark.parametrize("name", ("mobilevitv2_050", "mobilevitv3_050"))
def test_v2_has_operators_that_gpus_take(name):
  data, _ = _litert(random_model(name), random_images(1, 96))
  assert set(litert.inspect(data).operators) <= GPU_OPERATORS
  assert litert.inspect(data).rank == 4


def test_litert_has_builtin_operators_of_at_most_four_axes():
  data, _ = _litert(random_model("mobilevit_xxs"), random_images(1, 96))
  schema = flatbuffer.schema()
  model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
  codes = [code.builtinCode for code in model.operatorCodes]
  builtin = schema.BuiltinOperator
  forbidden = {builtin.CUSTOM, builtin.WHILE, builtin.IF, builtin.DELEGATE}
  assert not forbidden & set(codes)
  names = {code: name for name, code in vars(builtin).items()}
  assert {names[code] for code in codes} <= GPU_OPERATORS
  (subgraph,) = model.subgraphs
  assert max(len(tensor.shape) for tensor in subgraph.tensors) <= 4
  kinds = [codes[op.opcodeIndex] for op in subgraph.operators]
  assert kinds.count(builtin.DEPTHWISE_CONV_2D) == 7  # one an inverted residual
  names = [tensor.name for tensor in subgraph.tensors]
  assert len(set(names)) == len(names)


def test_onnx_has_native_depthwise_and_at_most_four_axes():
  data, _ = _onnx(random_model("mobilevit_xxs"), random_images(1, 96))
  model = onnx.shape_inference.infer_shapes(
    onnx.load_from_string(data), strict_mode=True
  )
  assert {node.domain for node in model.graph.node} == {""}
  kinds = {node.op_type for node in model.graph.node}
  assert not kinds & {"If", "Loop", "Scan"}
  ranks = [
    len(value.type.tensor_type.shape.dim) for value in model.graph.value_info
  ]
  assert max(ranks) == 4
  groups = [
    attribute.i
    for node in model.graph.node
    if node.op_type == "Conv"
    for attribute in node.attribute
    if attribute.name == "group" and attribute.i > 1
  ]
  assert len(groups) == 7


def test_metadata_is_in_the_onnx_file():
  data, _ = _onnx(random_model("mobilevit_xxs"), random_images(1, 64))
  props = onnx.load_from_string(data).metadata_props
  assert {p.key: p.value for p in props} == {"mobilevit_jax": '{"size": 64}'}


def test_metadata_is_in_the_litert_file():
  data, _ = _litert(random_model("mobilevit_xxs"), random_images(1, 64))
  schema = flatbuffer.schema()
  model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
  found = {
    entry.name: bytes(model.buffers[entry.buffer].data)
    for entry in model.metadata
  }
  assert found == {b"mobilevit_jax": b'{"size": 64}'}
