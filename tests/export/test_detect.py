"""Detectors in LiteRT, ONNX and StableHLO, beside the net in JAX."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import litert
from mobilevit_jax.export import nms
from mobilevit_jax.export import verify
from mobilevit_jax.tasks import ssd
from tests.export.random_model import random_model

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 96  # its maps have 6, 3, 2, 1, 1 and 1 pixels
HOW = nms.Suppression(per_class=60, most=40)


@pytest.fixture(scope="module")
def model():
  return random_model("mobilevit_xxs", head="ssdlite", num_classes=3)


@pytest.fixture(scope="module")
def images():
  return verify.built_in_images(SIZE, 3)


def options(precision="fp32", **fields):
  return contract.Options(precision, size=SIZE, output="boxes", **fields)


@pytest.fixture(scope="module")
def expected(model, images):
  return verify.answers_of_jax(model, images, options())


@pytest.mark.parametrize(
  ("name", "batch"), (("litert", 2), ("onnx", None), ("stablehlo", None))
)
def test_boxes_and_scores_are_jaxs(model, images, expected, name, batch):
  o = options(batch=batch)
  result = formats.export(model, name, o, {}, images, expected=expected)
  assert result.findings.rank <= contract.MAX_RANK
  assert result.comparison.agreement == 1  # boxes to 1e-3, the same classes
  if name == "litert":
    assert "partitions: 1; outside them: nothing" in result.findings.notes[0]


def test_onnx_suppresses_as_evaluation_does(model, images):
  o = options(batch=None, nms=HOW)
  result = formats.export(model, "onnx", o, {}, images)
  assert result.findings.operators["NonMaxSuppression"] == 1
  assert result.comparison.agreement == 1
  row = formats.FORMATS["onnx"]
  # Of one image and of five, from one file; and nothing is above 1.
  for how in (HOW, dataclasses.replace(HOW, threshold=1.0)):
    content = row.build(model, options(batch=None, nms=how), "{}")
    engine = row.engine(content)
    for count in (1, 5):
      pixels = verify.as_input(verify.built_in_images(SIZE, count), o)
      found = engine(pixels)
      assert found["boxes"].shape == (count, 40, 4)
      assert found["classes"].dtype == np.int32
      assert (found["scores"] > 0).any() == (how is HOW)


@pytest.mark.parametrize("seed", range(5))
def test_the_host_function_is_the_evaluations_suppression(seed):
  rng = np.random.default_rng(seed)
  corner = rng.uniform(-0.1, 0.9, (200, 2))
  sides = rng.uniform(0.01, 0.5, (200, 2))
  boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
  scores = rng.uniform(0, 1, (200, 4)).astype(np.float32) ** 3
  scores[:50] = np.round(scores[:50], 1)  # equal ones
  how = nms.Suppression(0.2, per_class=30, nms_iou=0.4, most=25)
  found = nms.suppress(boxes, scores, how)
  expected = ssd.detect(
    jnp.asarray(boxes)[None],
    jnp.asarray(scores)[None],
    threshold=0.2,
    per_class=30,
    most_iou=0.4,
    most=25,
  )
  count = int(np.sum(expected.scores > 0))
  assert len(found[0]) == count
  for own, theirs in zip(
    found, (expected.boxes, expected.scores, expected.classes), strict=True
  ):
    np.testing.assert_array_equal(own, np.asarray(theirs)[0, :count])
  none = nms.suppress(boxes, scores, nms.Suppression(1.0))
  assert [len(part) for part in none] == [0, 0, 0]


def test_the_lines_of_the_page_find_what_evaluation_does(
  model, images, tmp_path, monkeypatch
):
  page = (ROOT / "docs" / "on_device.md").read_text()
  section = page.partition("### Boxes after the file")[2]
  code = section.partition("```python\n")[2].partition("```")[0]
  (tmp_path / "cells.tflite").write_bytes(litert.build(model, options(), "{}"))
  monkeypatch.chdir(tmp_path)
  names = {"images": verify.as_input(images[:1], options())}
  exec(code, names)
  how = nms.Suppression(threshold=0.3)
  expected = verify.answers_of_jax(model, images[:1], options(nms=how))
  count = len(names["scores"])
  assert count == np.count_nonzero(expected["scores"]) > 0
  np.testing.assert_array_equal(
    names["classes"], expected["classes"][0, :count]
  )
  np.testing.assert_allclose(
    names["boxes"], expected["boxes"][0, :count], atol=1e-3
  )


@pytest.mark.parametrize("precision", ("int8-dynamic", "int8"))
def test_eight_bits_leave_decoding_in_float32(
  model, images, expected, precision
):
  o = options(precision)
  content = litert.build(model, o, "", verify.as_input(images, o))
  kind = litert.flatbuffer.schema().TensorType
  types = {
    tensor.name.decode(): tensor.type
    for tensor in litert.read(content).subgraphs[0].tensors
  }
  assert types["predict/0/classes/conv/kernel"] == kind.INT8
  for name in ("boxes/corners", "scores/softmax", "predict/0/classes/conv"):
    assert types[name] == kind.FLOAT32, name
  inside = kind.INT8 if precision == "int8" else kind.FLOAT32
  assert types["filters/0/depthwise/conv"] == inside
  assert "outside them: nothing" in litert.inspect(content).notes[0]
  found = litert.run(content, verify.as_input(images, o), o)
  comparison = verify.compare(model, found, expected, o)
  assert 0.9 < comparison.agreement < 1


def test_a_wrong_box_or_class_is_refused(model, expected):
  o = options()
  same = verify.compare(model, expected, expected, o)
  assert same == verify.Comparison(3, 0.0, 1.0)
  moved = {**expected, "boxes": expected["boxes"] + np.float32(2e-3)}
  turned = {**expected, "scores": expected["scores"][..., ::-1]}
  for wrong in (moved, turned):
    comparison = verify.compare(model, wrong, expected, o)
    assert comparison.agreement < 0.7
    with pytest.raises(contract.ExportError):
      verify.check(comparison, o)


def test_detections_are_compared_one_by_one(model):
  expected = {
    "boxes": np.float32([[[0, 0, 0.5, 0.5], [0.2, 0.2, 1, 1], [0, 0, 0, 0]]]),
    "scores": np.float32([[0.9, 0.4, 0]]),
    "classes": np.int32([[1, 0, 0]]),
  }
  o = options(nms=HOW)

  def share(**changes):
    return verify.compare(model, {**expected, **changes}, expected, o)

  assert share() == verify.Comparison(1, 0.0, 1.0)
  order = [1, 0, 2]  # two that are equally sure may change places
  turned = {name: value[:, order] for name, value in expected.items()}
  assert share(**turned).agreement == 1
  less = share(scores=np.float32([[0.8, 0.4, 0]]))
  assert less.difference == pytest.approx(0.1)
  assert share(classes=np.int32([[1, 1, 0]])).agreement == 0.5
  assert share(scores=np.float32([[0.9, 0, 0]])).agreement == 0.5
  assert share(boxes=expected["boxes"] + np.float32(0.1)).agreement == 0
  extra = share(scores=np.float32([[0.9, 0.4, 0.3]]))
  assert extra.agreement == pytest.approx(2 / 3)


def test_only_onnx_suppresses_in_the_file(model):
  formats.check_options("onnx", options(nms=HOW), model)
  for name in ("litert", "stablehlo", "coreml"):
    with pytest.raises(ValueError, match=r"--nms needs .*onnx; beside a file"):
      formats.check_options(name, options(nms=HOW), model)
