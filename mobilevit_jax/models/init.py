"""Initial weights, drawn with numpy by the rules of ml-cvnets v0.1.

JAX's generator compiles once for each tensor's shape, twenty seconds in all
for the smallest net; numpy takes a tenth of a second, and gives each tensor
a stream of its own, so that one layer's values don't depend on the others.
"""

from typing import Any
import zlib

import jax
import numpy as np

from mobilevit_jax.models import net


def draw(shapes: dict[Any, Any], seed: int) -> dict[Any, Any]:
  """Initial values for a nested dict of shaped leaves.

  Convolutions are Kaiming-normal in mode fan_out, std sqrt(2 / (kh kw out)),
  the depthwise ones with torch's fan_out of 9 c; linear layers are normal
  with std 0.02; scales and variances 1, the rest 0
  (`cvnets/misc/init_utils.py` of v0.1; later versions skip it by a bug).

  Args:
    shapes: nested dict whose leaves have `shape` and `dtype`.
    seed: any non-negative integer.

  Returns:
    The same tree with numpy arrays.
  """
  if seed < 0:
    raise ValueError(f"seed={seed} must not be negative")
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: _draw_one(path, leaf, seed), shapes
  )


def _draw_one(path: tuple[Any, ...], leaf: Any, seed: int) -> np.ndarray:
  names = [str(getattr(key, "key", key)) for key in path]
  if names[-1] in ("scale", "var"):
    return np.ones(leaf.shape, leaf.dtype)
  if names[-1] != "kernel":
    return np.zeros(leaf.shape, leaf.dtype)
  name = net.public_name("/".join(names))
  rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
  if len(leaf.shape) == 4:
    kh, kw, _, out_channels = leaf.shape
    std = np.sqrt(2 / (kh * kw * out_channels))
  else:
    std = 0.02
  return (std * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
