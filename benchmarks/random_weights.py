"""Nets none of whose tensors has its first, telling value.

A new net's norms change nothing and some of its branches are nearly silent, so
a graph that gets them wrong would agree with it.
"""

from typing import TypeVar

from flax import nnx
import jax
import numpy as np

from mobilevit_jax.models import net
from mobilevit_jax.weights import trees

_GAIN = 1.45

Model = TypeVar("Model", bound=nnx.Module)


def randomize(model: Model, seed: int = 0) -> Model:
  """A copy with every parameter and statistic drawn anew."""
  rng = np.random.default_rng(seed)
  graphdef, state = nnx.split(model)
  values = {}
  leaves = trees.flatten(nnx.to_pure_dict(state))
  # Sorted by public names, so that a net's weights don't depend on how its
  # parts are arranged.
  for path in sorted(leaves, key=net.public_name):
    shape = leaves[path].shape
    if path.endswith("/var"):
      value = rng.uniform(0.5, 2, shape)
    elif path.endswith("/scale"):
      # Away from 1, and of both signs: a norm that is left out then shows.
      value = rng.uniform(0.7, 1.3, shape) * rng.choice([-1, 1], shape)
    elif path.endswith("/kernel"):
      # Convolutions make up for what SiLU takes away, or else hardly anything
      # of the image would be left at the end, and any graph would agree.
      gain = _GAIN if len(shape) == 4 else 1
      value = rng.normal(0, gain * np.prod(shape[:-1]) ** -0.5, shape)
    else:
      value = rng.normal(0, 0.2, shape)
    values[path] = value.astype(np.float32)
  tree = trees.replace(nnx.to_pure_dict(state), values)
  return nnx.merge(graphdef, jax.device_put(tree))
