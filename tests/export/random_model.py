"""Models none of whose parameters has its first, telling value."""

from flax import nnx
import jax
import numpy as np

from mobilevit_jax import create_model
from mobilevit_jax.weights import trees


def randomize(model, seed=0):
  """A copy with every parameter and statistic drawn anew."""
  rng = np.random.default_rng(seed)
  graphdef, state = nnx.split(model)
  values = {}
  for path, leaf in trees.flatten(nnx.to_pure_dict(state)).items():
    shape = leaf.shape
    if path.endswith("/var"):
      value = rng.uniform(0.5, 2, shape)
    elif path.endswith("/scale"):
      value = rng.uniform(0.7, 1.3, shape) * rng.choice([-1, 1], shape)
    elif path.endswith("/kernel"):
      fan_in = np.prod(shape[:-1])
      value = rng.normal(0, fan_in**-0.5, shape)
    else:
      value = rng.normal(0, 0.2, shape)
    values[path] = value.astype(np.float32)
  tree = trees.replace(nnx.to_pure_dict(state), values)
  return nnx.merge(graphdef, jax.device_put(tree))


def random_model(name, **fields):
  """`create_model` with every tensor random, native depthwise."""
  fields = {"num_classes": 7, "depthwise": "conv", **fields}
  return randomize(create_model(name, **fields))


def random_images(batch, size, seed=0):
  """Smooth random images, float32 `[batch, size, size, 3]` in [0, 1]."""
  rng = np.random.default_rng(seed)
  coarse = rng.uniform(size=(batch, 8, 8, 3))
  index = np.arange(size) * 8 // size
  return coarse[:, index][:, :, index].astype(np.float32)
