"""A net with MobileViT's depth and strides that compiles in seconds."""

from flax import nnx
import numpy as np
import pytest

from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax import visualize
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models.heads import classifier

_NARROW = mobilevit.Variant((4, 4, 4, 4, 4, 4), (8, 8, 8), 1, dropout=0.0)
# 224 pixels make an odd side, 7, of the last stage's map; 128 make an even one.
_SIZE = 224, 128


@pytest.fixture(scope="session")
def model():
  """The net."""

  def build():
    backbone = mobilevit.MobileViT(_NARROW)
    return models.Net(backbone, classifier.Classifier(backbone, num_classes=2))

  return random_weights.randomize(models.initialize(nnx.eval_shape(build), 0))


@pytest.fixture(scope="session")
def image():
  """Noise, float32 [224, 128, 3]."""
  return np.random.default_rng(0).random((*_SIZE, 3), np.float32)


@pytest.fixture(scope="session")
def maps(model, image):
  """Attention of the net to the image."""
  return visualize.attention_maps(model, image)


@pytest.fixture(scope="session")
def features(model, image):
  """The net's stages."""
  return visualize.feature_maps(model, image)
