"""Writes LiteRT graphs of eight bits, operator by operator.

Which operators are of eight bits was decided by measuring what XNNPACK makes
fast and what costs accuracy (`docs/benchmarks/infer.md`): convolutions, dense
layers, SiLU, data movement and, if asked for, the two products of attention.
LayerNorm, softmax and the transformer's residual stream stay in float32.
"""

from collections.abc import Callable, Mapping
import re

import numpy as np

from mobilevit_jax.export.litert.flatbuffer import Grid
from mobilevit_jax.export.litert.flatbuffer import Ref
from mobilevit_jax.export.litert.writer import LiteRTOps

# For each tensor of the float32 graph, the least and the largest value.
Ranges = Mapping[str, tuple[float, float]]

PIXELS = Grid(1 / 255, -128)  # images in [0, 1]
_UNIT = Grid(1 / 256, -128)  # what engines take alone for results in [0, 1)
_MOVES = ("PAD", "RESHAPE", "RESIZE_BILINEAR", "TRANSPOSE")
# XNNPACK multiplies int8 matrices only if the second has its zero at 0.
_SYMMETRIC = re.compile(r"/(key|value)/linear$")
_MAX_BIAS = 2.0**30
# What follows a head's last layer. A detector's boxes would land on a grid, and
# softmax is slow in eight bits; a segmenter's logits, enlarged in eight bits,
# cost twice as much mean IoU (0.65 points of a trained net, and not 0.30).
_DECODING = re.compile(r"^(boxes|scores)/|^classifier/(resize|rows|mask)")
# Last layers of eight bits whose results are not: their input's range is found
# as it comes, as a classifier's is.
_LAST = re.compile(r"^predict/|^classifier$")


class DynamicOps(LiteRTOps):
  """Collects a graph with int8 weights and float32 activations.

  XNNPACK finds the range of each activation as it comes. It has no such
  depthwise convolution; those few weights stay in float32.

  Args:
    select: whether an operator, by its name, may be of eight bits; by default
      all may.
  """

  def __init__(self, select: Callable[[str], bool] | None = None):
    super().__init__()
    self._select = lambda name: (
      not _DECODING.match(name) and (select is None or select(name))
    )

  def weights(self, x, kernel, bias, name, *, axis):
    """See `LiteRTOps.weights`."""
    # `axis` is 3 for depthwise kernels, which XNNPACK takes in float32 only
    # beside float32 activations.
    if axis or not self._select(name):
      return super().weights(x, kernel, bias, name, axis=axis)
    values, scales = quantise_weights(kernel, axis)
    return [
      self.integers(values, scales, f"{name}/kernel", axis),
      self.constant(np.float32(bias), f"{name}/bias"),
    ]


class Int8Ops(DynamicOps):
  """Collects a graph of int8 weights and, mostly, int8 activations.

  Args:
    ranges: of every tensor, from calibration.
    select: see `DynamicOps`.
  """

  def __init__(
    self, ranges: Ranges, select: Callable[[str], bool] | None = None
  ):
    super().__init__(select)
    self._ranges = ranges
    self._converted: dict[tuple[int, Grid | None], Ref] = {}

  def _grid(self, name: str) -> Grid:
    # real = scale (integer - zero): calibration gives the ends, see `grid`.
    return grid(*self._ranges[name], symmetric=bool(_SYMMETRIC.search(name)))

  def _int8(self, x: Ref, wanted: Grid | None = None) -> Ref:
    """The tensor in eight bits, on the `wanted` grid if one is given."""
    if x.grid is not None and wanted in (None, x.grid):
      return x
    return self._convert(x, wanted or self._grid(x.name))

  def _chosen(self, x: Ref, name: str) -> Ref:
    return self._int8(x) if self._select(name) else self._float(x)

  def _float(self, x: Ref) -> Ref:
    return x if x.grid is None else self._convert(x, None)

  def _convert(self, x: Ref, wanted: Grid | None) -> Ref:
    # A tensor is converted once, however many operators read it.
    key = x.index, wanted
    if key not in self._converted:
      code = "DEQUANTIZE" if wanted is None else "QUANTIZE"
      kind = "float" if wanted is None else "int8"
      name = f"{x.name}/{kind}"
      if x.grid is not None and wanted is not None:
        name = f"{x.name}/int8/{len(self._converted)}"
      options = "DequantizeOptions" if wanted is None else "QuantizeOptions"
      self._converted[key] = self.op(
        code, [x], x.shape, name, options, grid=wanted
      )
    return self._converted[key]

  def op(self, code, inputs, shape, name, options=None, *, grid=None, **fields):
    """As `LiteRTFile.op`: what the first input is of, the result is of."""
    first = inputs[0].grid
    # The result's grid follows from the operator: movements keep their input's,
    # sigmoid and softmax have one that engines insist on, the rest is
    # calibrated.
    if first is not None and code not in ("DEQUANTIZE", "QUANTIZE"):
      if code in _MOVES:
        grid = first
      elif code in ("LOGISTIC", "SOFTMAX"):
        grid = _UNIT
      else:
        grid = self._grid(name)
    return super().op(code, inputs, shape, name, options, grid=grid, **fields)

  def weights(self, x, kernel, bias, name, *, axis):
    """See `LiteRTOps.weights`."""
    if x.grid is None:
      return super().weights(x, kernel, bias, name, axis=axis)
    # A large bias of a small kernel needs coarser steps, to stay in int32.
    least = np.abs(bias) / (x.grid.scale * _MAX_BIAS)
    # int32 biases have the scale of the products: that of x times the kernel's.
    values, scales = quantise_weights(kernel, axis, least)
    steps = np.float32(x.grid.scale) * scales
    offsets = np.rint(np.float64(bias) / steps).astype(np.int32)
    return [
      self.integers(values, scales, f"{name}/kernel", axis),
      self.integers(offsets, steps, f"{name}/bias"),
    ]

  def input(self, shape, *, pixels=False):
    """See `LiteRTOps.input`; the pixels need no arithmetic here."""
    if not self._select("images"):
      return super().input(shape, pixels=pixels)
    if not pixels:
      return self._convert(super().input(shape), PIXELS)
    # uint8 pixels on a grid from 0 become int8 by subtracting 128: no
    # arithmetic on values.
    pixel = Grid(PIXELS.scale, 0)
    return self._convert(
      self.tensor(shape, "UINT8", "images", 0, pixel), PIXELS
    )

  def conv(self, x, kernel, bias, name, **options):
    """In eight bits where they are chosen; the last layer takes float32."""
    x = self._float(x) if _LAST.search(name) else self._chosen(x, name)
    return super().conv(x, kernel, bias, name, **options)

  def linear(self, x, kernel, bias, name):
    """As `conv`; the classifier takes float32 and finds the range itself."""
    # Two axes: the classifier, whose input is the mean.
    x = self._float(x) if len(x.shape) == 2 else self._chosen(x, name)
    return super().linear(x, kernel, bias, name)

  def silu(self, x, name):
    """In eight bits where they are chosen."""
    return super().silu(self._chosen(x, name), name)

  def add(self, x, y, name):
    """Maps in eight bits; the transformer's stream in float32."""
    # The name tells maps from the transformer's stream.
    if name.endswith("/residual"):
      x, y = self._chosen(x, name), self._chosen(y, name)
    else:
      x, y = self._float(x), self._float(y)
    return super().add(x, y, name)

  def concat(self, x, y, name):
    """In eight bits on one grid for both inputs, as engines want."""
    if self._select(name):
      common = self._grid(name)
      x, y = self._int8(x, common), self._int8(y, common)
    else:
      x, y = self._float(x), self._float(y)
    return super().concat(x, y, name)

  def pool(self, x, name):
    """In float32: the mean is what the classifier takes."""
    return super().pool(self._float(x), name)

  def layer_norm(self, x, epsilon, name):
    """In float32, squares and root too."""
    return super().layer_norm(self._float(x), epsilon, name)

  def group_norm(self, x, epsilon, name):
    """In float32, as `layer_norm`."""
    return super().group_norm(self._float(x), epsilon, name)

  def mul(self, x, y, name):
    """In eight bits where they are chosen, each factor on its own grid."""
    return super().mul(self._chosen(x, name), self._chosen(y, name), name)

  def softmax(self, x, name):
    """In float32, of scores that may be of eight bits."""
    return super().softmax(self._float(x), name)

  def relu(self, x, name):
    """For maps a change of grid, to one with nothing below zero."""
    if len(x.shape) == 2 or not self._select(name):
      return super().relu(self._float(x), name)
    # What lies below zero is cut by quantising.
    return self._int8(x, self._grid(name))

  def hard_swish(self, x, name):
    """In float32: XNNPACK has none of eight bits."""
    return super().hard_swish(self._float(x), name)

  def scale(self, x, gate, name):
    """The map in eight bits where they are chosen; the gate as it comes."""
    return super().scale(self._chosen(x, name), gate, name)

  def matmul(self, x, y, name, *, transpose_y=False):
    """In eight bits, but for a sum over all patches: that is in float32."""
    # v2's context sums over hundreds of patches, too much for eight bits'
    # scores.
    if name.endswith("/context"):
      x, y = self._float(x), self._float(y)
    else:
      x, y = self._chosen(x, name), self._chosen(y, name)
    return super().matmul(x, y, name, transpose_y=transpose_y)

  def resize(self, x, h, w, name, **options):
    """In eight bits where they are chosen."""
    return super().resize(self._chosen(x, name), h, w, name, **options)

  def mask(self, x, name):
    """Of float32 scores, `[b, h, w]` in uint8."""
    return super().mask(self._float(x), name)

  def reshape(self, x, shape, name):
    """Of what comes; values and grid stay."""
    return super().reshape(self._chosen(x, name), shape, name)

  def transpose(self, x, order, name):
    """Of what comes; values and grid stay."""
    return super().transpose(self._chosen(x, name), order, name)

  def serialize(self, outputs, metadata):
    """See `LiteRTFile.serialize`; results are float32."""
    outputs = {name: self._float(ref) for name, ref in outputs.items()}
    return super().serialize(outputs, metadata)


def grid(low: float, high: float, *, symmetric: bool = False) -> Grid:
  """The finest grid over a range and 0; zero is on it, as padding needs."""
  # 0 must be on the grid exactly: padding and ReLU write it.
  low, high = min(low, 0.0), max(high, 0.0)
  if symmetric:
    return Grid(_positive(max(-low, high) / 127), 0)
  scale = _positive((high - low) / 255)
  # low maps to -128; the zero point is rounded and kept within int8.
  return Grid(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def _positive(scale: float) -> float:
  return float(np.float32(max(scale, 1e-12)))  # as the file keeps it


def quantise_weights(
  kernel: np.ndarray, axis: int, least: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
  """int8 weights and the float32 scale of each slice along `axis`."""
  others = tuple(i for i in range(kernel.ndim) if i != axis)
  largest = np.abs(kernel).max(others)
  scales = np.maximum(np.maximum(largest / 127, least), 1e-12)
  # 127, not 128: a symmetric range, as XNNPACK expects of weights.
  scales = scales.astype(np.float32)
  shape = [-1 if i == axis else 1 for i in range(kernel.ndim)]
  values = np.rint(kernel / scales.reshape(shape))
  return np.clip(values, -127, 127).astype(np.int8), scales
