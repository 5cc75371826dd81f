"""CoreML packages, read back and computed by MIL's documentation."""

import json

import numpy as np
import pytest

from mobilevit_jax.export import __main__ as command
from mobilevit_jax.export import contract
from mobilevit_jax.export import coreml
from mobilevit_jax.export import verify
from mobilevit_jax.weights import save_weights
from tests.export import mil_reference
from tests.export.random_model import random_model

pytestmark = [
  pytest.mark.export,
  # coremltools' and those of what it imports.
  pytest.mark.filterwarnings("ignore::DeprecationWarning"),
  pytest.mark.filterwarnings("ignore::FutureWarning"),
]
pytest.importorskip("coremltools")


@pytest.fixture(scope="module")
def model():
  return random_model("mobilevit_xxs", depthwise="auto")


@pytest.mark.parametrize(
  ("options", "tolerance"),
  (
    (contract.Options(size=96, output="features", batch=2), 1e-4),
    (
      contract.Options(
        size=96, precision="fp16", input="uint8", output="probabilities"
      ),
      2e-2,
    ),
  ),
)
def test_the_package_computes_what_jax_does(
  model, tmp_path, options, tolerance
):
  images = verify.built_in_images(96, options.batch)
  content = coreml.build(model, options, "{}")
  found = mil_reference.run(content, _input(images, options), tmp_path)
  expected = verify.answers_of_jax(model, images, options)
  assert verify.compare(model, found, expected, options).difference < tolerance
  findings = coreml.inspect(content)
  assert findings.rank == 4
  verify.check_shapes(model, findings.outputs, options)
  wrong = contract.Options(size=64, output="features")
  with pytest.raises(contract.ExportError, match="the outputs are"):
    verify.check_shapes(model, findings.outputs, wrong)


def test_the_package_of_v2_computes_what_jax_does(tmp_path):
  net = random_model("mobilevitv2_050", depthwise="auto")
  options = contract.Options(size=96)  # an odd map in stage 5
  images = verify.built_in_images(96, 1)
  content = coreml.build(net, options, "{}")
  found = mil_reference.run(content, _input(images, options), tmp_path)
  expected = verify.answers_of_jax(net, images, options)
  assert verify.compare(net, found, expected, options).difference < 1e-4


@pytest.mark.parametrize(
  ("head", "output", "precision"),
  (
    ("deeplabv3", "logits", "fp32"),
    ("deeplabv3", "mask", "fp32"),
    ("ssdlite", "boxes", "fp16"),
  ),
)
def test_packages_of_heads_compute_what_jax_does(
  tmp_path, head, output, precision
):
  fields = {"output_stride": 16, "aspp_width": 32, "aligned": True}
  net = random_model(
    "mobilevit_xxs", head=head, **(fields if head == "deeplabv3" else {})
  )
  options = contract.Options(precision, size=96, output=output)
  images = verify.built_in_images(96, 1)
  content = coreml.build(net, options, '{"a": 1}')
  assert coreml.metadata(content) == '{"a": 1}'
  verify.check_shapes(net, coreml.inspect(content).outputs, options)
  found = mil_reference.run(content, _input(images, options), tmp_path)
  expected = verify.answers_of_jax(net, images, options)
  comparison = verify.compare(net, found, expected, options)
  verify.check(comparison, options)
  if output == "boxes":  # decoded in float32, where the rest is float16's
    assert {value.dtype.name for value in found.values()} == {"float32"}
    assert comparison.difference > 1e-6
    casts = coreml.inspect(content).operators["cast"]
    assert casts >= 3  # to where decoding and softmax begin


def _input(images, options):
  if options.input == "uint8":  # an image, as CoreML hands it to the program
    return np.float32(images).transpose(0, 3, 1, 2)
  return np.float32(images / 255)


def test_the_command_says_that_nothing_was_run(model, tmp_path, capsys):
  weights, out = tmp_path / "w.safetensors", tmp_path / "out.mlpackage"
  save_weights(model, weights)
  args = [f"--weights={weights}", f"--out={out}", "--format=coreml"]
  args += ["--size=64", "--input=uint8"]
  assert command.main(args) == 0
  assert command.main([*args, "--force"]) == 0
  assert "NOT VERIFIED" in capsys.readouterr().out
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "out.mlpackage",
    "w.safetensors",
  ]
  (model_file,) = out.rglob("*.mlmodel")
  spec = coreml.coreml_graph.library().proto.Model_pb2.Model()
  spec.ParseFromString(model_file.read_bytes())
  text = spec.description.metadata.userDefined["mobilevit_jax"]
  assert json.loads(text)["verified"] is False
  (image,) = spec.description.input
  assert image.type.imageType.width == 64
