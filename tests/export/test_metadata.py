"""What a file says about itself."""

import json
import pathlib

import numpy as np
import pytest

from mobilevit_jax.data.transforms import detect
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import contract
from mobilevit_jax.export import metadata
from mobilevit_jax.export import nms
from mobilevit_jax.models import net
from mobilevit_jax.weights import trees
from tests.export.random_model import random_model

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model():
  return random_model("mobilevit_xxs")


def _describe(model, crop):
  options = contract.Options(size=crop.size)
  return metadata.describe(
    model,
    options,
    crop.preprocessing(),
    task="classify",
    name="mobilevit_xxs",
  )


@pytest.mark.parametrize(
  ("crop", "resize", "interpolation", "antialias"),
  (
    (presets.Crop(), 288, "bilinear", False),
    (presets.Crop("hf", 224), 252, "bilinear", True),
    (presets.Crop("timm", 256), 284, "bicubic", True),
    # A run of ours that is evaluated a fifth larger.
    (presets.Crop("cvnets", 192, 200), 200, "bilinear", False),
  ),
)
def test_the_crop_is_the_evaluations(
  model, crop, resize, interpolation, antialias
):
  found = _describe(model, crop)["preprocessing"]
  assert found == {
    "resize": "crop",
    "preset": crop.preset,
    "shorter_side": resize,
    "size": crop.size,
    "interpolation": interpolation,
    "antialias": antialias,
  }
  # And what it says makes the same pixels.
  image = np.random.default_rng(0).integers(0, 256, (310, 470, 3), np.uint8)
  said = presets.preprocess(
    image, found["preset"], found["size"], resize_size=found["shorter_side"]
  )
  np.testing.assert_array_equal(crop(image, "image"), said)


def test_it_says_which_net_it_is(model):
  found = _describe(model, presets.Crop(size=64))
  assert found["model"] == "mobilevit_xxs"
  assert found["variant"] == "xxs"
  assert found["task"] == "classify"
  assert found["num_classes"] == 7
  assert found["outputs"] == {"logits": {"type": "float32", "shape": [1, 7]}}
  # Of the tensors by the names that files have, whatever the net's parts are.
  names = {
    net.public_name(path): value
    for path, value in trees.flat_model(model).items()
  }
  assert "classifier/bias" in names
  assert found["weights"]["sha256"] == metadata.tensors_hash(names)


def test_a_detector_says_what_to_do_with_its_boxes():
  model = random_model("mobilevit_xxs", head="ssdlite", num_classes=3)
  transform = detect.DetectTransform()
  how = nms.Suppression(threshold=0.3)

  def describe(**fields):
    return metadata.describe(
      model,
      contract.Options(size=96, output="boxes", batch=None, **fields),
      transform.preprocessing(96),
      task="detect",
      name="mobilevit_xxs",
      labels=["a", "b", "c"],
      nms=how,
    )

  found = describe()
  assert found["input"]["shape"] == [None, 96, 96, 3]
  assert found["preprocessing"]["resize"] == "stretch"
  anchors = 6 * (36 + 9 + 4 + 1 + 1) + 4
  assert found["outputs"] == {
    "boxes": {"type": "float32", "shape": [None, anchors, 4]},
    "scores": {"type": "float32", "shape": [None, anchors, 3]},
  }
  settings = {"threshold": 0.3, "per_class": 400, "nms_iou": 0.5, "most": 200}
  assert found["nms"] == {"in_file": False, **settings}
  inside = describe(nms=how)
  assert inside["nms"]["in_file"]
  assert inside["outputs"]["classes"] == {"type": "int32", "shape": [None, 200]}
  # The page describes every entry.
  page = (ROOT / "docs" / "on_device.md").read_text()
  page = page.partition("## What a file says")[2].partition("## What works")[0]
  for entry in (*inside, *inside["input"], *inside["preprocessing"]):
    assert f'"{entry}"' in page or f"`{entry}`" in page, entry


def test_a_document_of_another_format_is_refused(model):
  document = _describe(model, presets.Crop())
  text = metadata.dumps(document)
  assert metadata.read(text, "a.onnx") == json.loads(text)
  for old in ("", "{}", json.dumps(document | {"format": 0})):
    with pytest.raises(ValueError, match=r"^a\.onnx .* export it again"):
      metadata.read(old, "a.onnx")
