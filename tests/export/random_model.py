"""Models with random weights, and images for them."""

import numpy as np

from benchmarks.random_weights import randomize
from mobilevit_jax import models
from mobilevit_jax.export import verify


def random_model(name, **fields):
  """The net with every tensor random, native depthwise, 7 classes."""
  fields = {"num_classes": 7, "depthwise": "conv", **fields}
  return randomize(models.abstract_model(name, **fields))


def random_images(batch, size):
  """Coloured squares, float32 `[batch, size, size, 3]` in [0, 1]."""
  return np.float32(verify.built_in_images(size, batch) / 255)
