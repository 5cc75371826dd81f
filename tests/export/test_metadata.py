"""What a file says about itself."""

import numpy as np
import pytest

from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import contract
from mobilevit_jax.export import metadata
from mobilevit_jax.models import net
from mobilevit_jax.weights import trees
from tests.export.random_model import random_model


@pytest.fixture(scope="module")
def model():
  return random_model("mobilevit_xxs")


def _describe(model, crop):
  options = contract.Options(size=crop.size)
  return metadata.describe(model, options, crop, name="mobilevit_xxs")


@pytest.mark.parametrize(
  ("crop", "resize", "interpolation"),
  (
    (presets.Crop(), 288, "bilinear, no antialiasing"),
    (presets.Crop("hf", 224), 252, "bilinear, antialiasing"),
    (presets.Crop("timm", 256), 284, "bicubic, antialiasing"),
    # A run of ours that is evaluated a fifth larger.
    (presets.Crop("cvnets", 192, 200), 200, "bilinear, no antialiasing"),
  ),
)
def test_the_crop_is_the_evaluations(model, crop, resize, interpolation):
  found = _describe(model, crop)["crop"]
  assert found == {
    "preset": crop.preset,
    "resize": resize,
    "size": crop.size,
    "interpolation": interpolation,
  }
  # And what it says makes the same pixels.
  image = np.random.default_rng(0).integers(0, 256, (310, 470, 3), np.uint8)
  said = presets.preprocess(
    image, found["preset"], found["size"], resize_size=found["resize"]
  )
  np.testing.assert_array_equal(crop(image, "image"), said)


def test_it_says_which_net_it_is(model):
  found = _describe(model, presets.Crop(size=64))
  assert found["model"] == "mobilevit_xxs"
  assert found["variant"] == "xxs"
  assert found["num_classes"] == 7
  # Of the tensors by the names that files have, whatever the net's parts are.
  names = {
    net.public_name(path): value
    for path, value in trees.flat_model(model).items()
  }
  assert "classifier/bias" in names
  assert found["weights"]["sha256"] == metadata.tensors_hash(names)
