"""Initial weights, drawn with numpy.

JAX's generator compiles once for each tensor's shape, twenty seconds in all
for the smallest net; numpy takes a tenth of a second, and gives each tensor
a stream of its own, so that one layer's values don't depend on the others.
"""

from collections.abc import Callable, Iterable
import math
from typing import Any
import zlib

import jax
import numpy as np

from mobilevit_jax.models import net

Rule = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def kaiming(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """Kernels of the classifiers (`cvnets/misc/init_utils.py` of v0.1).

  Convolutions are Kaiming-normal in mode fan_out, std sqrt(2 / (kh kw out)),
  the depthwise ones with torch's fan_out of 9 c; linear layers are normal
  with std 0.02. Later versions of cvnets skip all this by a bug.
  """
  if len(shape) == 4:
    # fan_out is torch's: kernel area times output channels, not divided by the
    # groups of a depthwise convolution, so these start smaller than in most
    # other code bases.
    kh, kw, _, out_channels = shape
    std = np.sqrt(2 / (kh * kw * out_channels))
  else:
    std = 0.02
  return std * rng.standard_normal(shape)


def xavier(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """Xavier's uniform kernels, of the detector's extra layers and heads."""
  kh, kw, in_channels, out_channels = shape
  bound = np.sqrt(6 / (kh * kw * (in_channels + out_channels)))
  return rng.uniform(-bound, bound, shape)


def draw(
  shapes: dict[Any, Any], seed: int, *, rule: Rule = kaiming, prefix: str = ""
) -> dict[Any, Any]:
  """Initial values for a nested dict of shaped leaves.

  Scales and variances are 1, kernels drawn, the rest 0.

  Args:
    shapes: nested dict whose leaves have `shape` and `dtype`.
    seed: any non-negative integer.
    rule: of kernels, from a generator and the shape.
    prefix: of the leaves' paths in the net.

  Returns:
    The same tree with numpy arrays.
  """
  if seed < 0:
    raise ValueError(f"seed={seed} must not be negative")
  # Leaves are independent of each other: each has a generator of its own.
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: _draw_one(prefix, path, leaf, seed, rule), shapes
  )


def draw_torch(shapes: dict[Any, Any], seed: int) -> dict[Any, Any]:
  """`draw`, but for PyTorch's own first values.

  Convolutions and their biases are uniform within 1 / sqrt(fan_in) of 0 (torch
  `nn/modules/conv.py:reset_parameters`), linear layers Xavier-uniform with
  biases 0 (ml-cvnets `cvnets/layers/linear_layer.py`). ml-cvnets trained from
  these since v0.2, where what its configurations ask for is never applied.
  """
  if seed < 0:
    raise ValueError(f"seed={seed} must not be negative")

  def of_layer(tree: Any, path: tuple[str, ...]) -> Any:
    bound, biased = 0.0, False
    # kernel: [kh, kw, in, out] of a convolution, [in, out] of a linear layer.
    if "kernel" in tree:
      *inputs, out_channels = tree["kernel"].shape
      fan_in, biased = math.prod(inputs), len(inputs) == 3
      # 1 / sqrt(fan_in) is torch's Kaiming
      # with a = sqrt(5); sqrt(6 / (in + out)) is Xavier (Glorot and Bengio
      # 2010).
      bound = fan_in**-0.5 if biased else (6 / (fan_in + out_channels)) ** 0.5
    result = {}
    for name, leaf in tree.items():
      inside = (*path, str(name))
      if isinstance(leaf, dict):
        result[name] = of_layer(leaf, inside)
      elif name in ("scale", "var"):
        result[name] = np.ones(leaf.shape, leaf.dtype)
      elif name == "kernel" or biased:
        values = _generator(inside, seed).uniform(-bound, bound, leaf.shape)
        result[name] = values.astype(leaf.dtype)
      else:
        result[name] = np.zeros(leaf.shape, leaf.dtype)
    return result

  return of_layer(shapes, ())


def _generator(path: Iterable[str], seed: int) -> np.random.Generator:
  """The stream of one tensor."""
  # By its public name, so that moving a layer to another part of the net keeps
  # its first values, and CRC-32 rather than `hash`, which Python salts in each
  # process.
  name = net.public_name("/".join(path))
  return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _draw_one(
  prefix: str, path: tuple[Any, ...], leaf: Any, seed: int, rule: Rule
) -> np.ndarray:
  names = [str(getattr(key, "key", key)) for key in path]
  if names[-1] in ("scale", "var"):
    return np.ones(leaf.shape, leaf.dtype)
  if names[-1] != "kernel":
    return np.zeros(leaf.shape, leaf.dtype)
  generator = _generator((*prefix.split("/")[:-1], *names), seed)
  return rule(generator, leaf.shape).astype(leaf.dtype)
