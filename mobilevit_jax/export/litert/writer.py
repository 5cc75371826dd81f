"""Writes LiteRT graphs, operator by operator.

No converter stands between the net and the file, so what a phone gets is what
is written here: builtin operators, native depthwise convolutions, no control
flow, at most four axes, names that a quantisation recipe can rely on.
"""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from mobilevit_jax.export.litert.flatbuffer import LiteRTFile
from mobilevit_jax.export.litert.flatbuffer import Ref
from mobilevit_jax.export.ops import Ops

_SAME, _VALID = 0, 1
_NONE, _RELU6 = 0, 3  # ActivationFunctionType


class LiteRTOps(LiteRTFile, Ops):
  """Collects a graph of a fixed batch; see `LiteRTFile`."""

  def input(self, shape: Sequence[int], *, pixels: bool = False) -> Ref:
    """Images: float32 in [0, 1], or uint8 `pixels` that become that."""
    if not pixels:
      return self.tensor(shape, "FLOAT32", "images")
    x = self.tensor(shape, "UINT8", "images")
    x = self.op("CAST", [x], shape, "preprocess/cast", "CastOptions")
    scale = self.constant(np.array([1 / 255], np.float32), "preprocess/scale")
    return self._binary("MUL", x, scale, "preprocess/images")

  def weights(
    self, x: Ref, kernel: np.ndarray, bias: np.ndarray, name: str, *, axis: int
  ) -> list[Ref]:
    """A layer's kernel and bias; `axis` is the kernel's output channel."""
    del x, axis  # for layers of eight bits
    return [
      self.constant(kernel, f"{name}/kernel", weight=True),
      self.constant(np.float32(bias), f"{name}/bias"),
    ]

  def conv(
    self, x, kernel, bias, name, *, stride=1, dilation=1, groups=1, relu6=False
  ):
    """CONV_2D, or DEPTHWISE_CONV_2D for groups; a PAD before strides."""
    kh, kw, _, out = kernel.shape
    padding = _SAME
    if stride > 1:
      # SAME would place the window of a stride of 2 elsewhere on even maps.
      reach = dilation * (kh // 2), dilation * (kw // 2)
      pads = [[0, 0], [reach[0]] * 2, [reach[1]] * 2, [0, 0]]
      # PAD, then VALID: symmetric padding at any stride.
      b, h, w, c = x.shape
      shape = (b, h + 2 * reach[0], w + 2 * reach[1], c)
      amounts = self.constant(np.array(pads, np.int32), f"{name}/pads")
      x = self.op("PAD", [x, amounts], shape, f"{name}/pad", "PadOptions")
      padding = _VALID
      # floor((n - reach of the kernel) / stride) + 1.
      h, w = (
        (n - dilation * (k - 1) - 1) // stride + 1
        for n, k in ((shape[1], kh), (shape[2], kw))
      )
    else:
      _, h, w, _ = x.shape
    depthwise = groups > 1
    # LiteRT: [out, kh, kw, in]; depthwise [1, kh, kw, channels].
    order = (2, 0, 1, 3) if depthwise else (3, 0, 1, 2)
    if bias is None:
      bias = np.zeros(out, np.float32)
    weights = self.weights(
      x, kernel.transpose(order), bias, name, axis=3 if depthwise else 0
    )
    kind = "DepthwiseConv2D" if depthwise else "Conv2D"
    fields: dict[str, Any] = {"depthMultiplier": 1} if depthwise else {}
    return self.op(
      "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
      [x, *weights],
      (x.shape[0], h, w, out),
      name,
      f"{kind}Options",
      padding=padding,
      strideW=stride,
      strideH=stride,
      dilationWFactor=dilation,
      dilationHFactor=dilation,
      fusedActivationFunction=_RELU6 if relu6 else _NONE,
      **fields,
    )

  def linear(self, x, kernel, bias, name):
    """FULLY_CONNECTED, over the last axis of x `[..., d]`."""
    return self.op(
      "FULLY_CONNECTED",
      [x, *self.weights(x, kernel.T, bias, name, axis=0)],
      (*x.shape[:-1], kernel.shape[1]),
      name,
      "FullyConnectedOptions",
      keepNumDims=len(x.shape) > 2,
    )

  def silu(self, x, name):
    """LOGISTIC and MUL."""
    # LiteRT has no SiLU: XNNPACK runs the two operators in its partition.
    gate = self.op("LOGISTIC", [x], x.shape, f"{name}/sigmoid")
    return self._binary("MUL", x, gate, name)

  def relu(self, x, name):
    """RELU, of any rank."""
    return self.op("RELU", [x], x.shape, name)

  def hard_swish(self, x, name):
    """HARD_SWISH, of maps and of rows."""
    return self.op("HARD_SWISH", [x], x.shape, name, "HardSwishOptions")

  def hard_sigmoid(self, x, name):
    """`RELU6(x + 3) / 6`, as three operators."""
    three = self.constant(np.array([3], np.float32), f"{name}/three")
    sixth = self.constant(np.array([1 / 6], np.float32), f"{name}/sixth")
    y = self._binary("ADD", x, three, f"{name}/shift")
    y = self.op("RELU6", [y], x.shape, f"{name}/clip")
    return self._binary("MUL", y, sixth, name)

  def scale(self, x, gate, name):
    """MUL of a map `[b, h, w, c]` by its gate, broadcast over h and w."""
    gate = self.reshape(gate, (-1, 1, 1, x.shape[-1]), f"{name}/columns")
    return self._binary("MUL", x, gate, name)

  def _binary(self, code, x, y, name):
    options = {"ADD": "AddOptions", "MUL": "MulOptions", "SUB": "SubOptions"}
    return self.op(code, [x, y], x.shape, name, options[code])

  def add(self, x, y, name):
    """ADD of two tensors of one shape."""
    return self._binary("ADD", x, y, name)

  def mul(self, x, y, name):
    """MUL; y may broadcast over x."""
    return self._binary("MUL", x, y, name)

  def concat(self, x, y, name):
    """CONCATENATION of the channels, axis 3."""
    shape = (*x.shape[:-1], x.shape[-1] + y.shape[-1])
    return self.op(
      "CONCATENATION", [x, y], shape, name, "ConcatenationOptions", axis=3
    )

  def resize(self, x, h, w, name, *, align_corners=False):
    """RESIZE_BILINEAR to `[b, h, w, c]`."""
    b, _, _, c = x.shape
    size = self.constant(np.array([h, w], np.int32), f"{name}/size")
    return self.op(
      "RESIZE_BILINEAR",
      [x, size],
      (b, h, w, c),
      name,
      "ResizeBilinearOptions",
      halfPixelCenters=not align_corners,
      alignCorners=align_corners,
    )

  def mask(self, x, name):
    """ARG_MAX over channels, `[b, h, w]`, cast to uint8."""
    shape = x.shape[:3]
    axis = self.constant(np.array(3, np.int32), f"{name}/axis")
    y = self.op(
      "ARG_MAX",
      [x, axis],
      shape,
      f"{name}/index",
      "ArgMaxOptions",
      kind="INT32",
      outputType=2,  # TensorType.INT32
    )
    return self.op("CAST", [y], shape, name, "CastOptions", kind="UINT8")

  def join(self, parts, axis, name):
    """CONCATENATION along any axis."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return self.op(
      "CONCATENATION", parts, shape, name, "ConcatenationOptions", axis=axis
    )

  def exp(self, x, name):
    """EXP."""
    return self.op("EXP", [x], x.shape, name, "ExpOptions")

  def affine(self, x, scale, shift, name):
    """MUL and ADD by constants `[1, ...]`, broadcast over the batch."""
    for code, part, value in (("MUL", "scale", scale), ("ADD", "shift", shift)):
      if value is not None:
        values = self.constant(
          np.asarray(value, np.float32)[None], f"{name}/{part}"
        )
        last = name if part == "shift" or shift is None else f"{name}/product"
        x = self._binary(code, x, values, last)
    return x

  def tail(self, x, name):
    """SLICE from place 1 of the last axis."""
    b, n, k = x.shape
    begin = self.constant(np.array([0, 0, 1], np.int32), f"{name}/begin")
    size = self.constant(np.array([b, n, k - 1], np.int32), f"{name}/size")
    return self.op(
      "SLICE", [x, begin, size], (b, n, k - 1), name, "SliceOptions"
    )

  def _mean(self, x, axes, shape, name, keep):
    where = self.constant(np.array(axes, np.int32), f"{name}/axes")
    return self.op(
      "MEAN", [x, where], shape, name, "ReducerOptions", keepDims=keep
    )

  def pool(self, x, name):
    """MEAN over h and w; `[b, c]`."""
    return self._mean(x, [1, 2], (x.shape[0], x.shape[-1]), name, False)

  def layer_norm(self, x, epsilon, name):
    """MEAN of squares, RSQRT and MUL; the mean is zero, and not taken."""
    return self._standardise(x, [len(x.shape) - 1], epsilon, name)

  def group_norm(self, x, epsilon, name):
    """MEAN and SUB over all axes but the batch, then as `layer_norm`."""
    axes = list(range(1, len(x.shape)))
    shape = (x.shape[0], *[1] * len(axes))
    # XNNPACK has no group norm, so it is written out.
    mean = self._mean(x, axes, shape, f"{name}/centre", True)
    x = self._binary("SUB", x, mean, f"{name}/centred")
    return self._standardise(x, axes, epsilon, name)

  def _standardise(self, x, axis, epsilon, name):
    """`x`, whose mean is zero, by the root of its mean square."""
    shape = [1 if i in axis else n for i, n in enumerate(x.shape)]
    square = self._binary("MUL", x, x, f"{name}/square")
    mean = self._mean(square, axis, shape, f"{name}/mean", True)
    small = self.constant(np.array([epsilon], np.float32), f"{name}/epsilon")
    mean = self._binary("ADD", mean, small, f"{name}/mean_epsilon")
    scale = self.op("RSQRT", [mean], shape, f"{name}/rsqrt")
    return self._binary("MUL", x, scale, name)

  def matmul(self, x, y, name, *, transpose_y=False):
    """BATCH_MATMUL; `adjY` transposes y without an operator."""
    columns = y.shape[-2] if transpose_y else y.shape[-1]
    return self.op(
      "BATCH_MATMUL",
      [x, y],
      (*x.shape[:-1], columns),
      name,
      "BatchMatMulOptions",
      adjY=transpose_y,
    )

  def softmax(self, x, name):
    """SOFTMAX over the last axis."""
    return self.op("SOFTMAX", [x], x.shape, name, "SoftmaxOptions", beta=1.0)

  def reshape(self, x, shape, name):
    """RESHAPE, to a shape written out in full."""
    # Only the batch may be -1; it is known here, and written out.
    if shape[0] == -1:
      shape = (math.prod(x.shape) // math.prod(shape[1:]), *shape[1:])
    target = self.constant(np.array(shape, np.int32), f"{name}/shape")
    return self.op(
      "RESHAPE",
      [x, target],
      shape,
      name,
      "ReshapeOptions",
      newShape=list(shape),
    )

  def transpose(self, x, order, name):
    """TRANSPOSE, by an int32 order."""
    axes = self.constant(np.array(order, np.int32), f"{name}/order")
    shape = [x.shape[axis] for axis in order]
    return self.op("TRANSPOSE", [x, axes], shape, name, "TransposeOptions")

  def rows(self, x, name):
    """Maps are plain tensors here."""
    del name
    return x

  def map(self, x, name):
    """Maps are plain tensors here."""
    del name
    return x

  def size(self, x):
    """From `[b, h, w, c]`."""
    return x.shape[1:3]
