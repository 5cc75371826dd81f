"""Depthwise convolution that is fast on every platform."""

from typing import Literal

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jax.typing import DTypeLike

Kind = Literal["auto", "conv", "shift"]
KINDS: tuple[Kind, ...] = ("auto", "conv", "shift")


def depthwise_conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  dilation: int = 1,
  kind: Kind = "auto",
) -> jax.Array:
  """Convolution of each channel by itself, padded to keep the size, no bias.

  XLA has no fast grouped convolution on CPU (15 to 40 times slower than the
  arithmetic needs), so there the kernel's taps become shifted multiply-adds.
  GPU and TPU keep the native operator, and so do exports.

  Args:
    x: `[b, h, w, c]`.
    kernel: `[k, k, 1, c]`, k odd.
    stride: 1 or 2, the same in both directions.
    dilation: distance between the taps, in pixels.
    kind: `"conv"`, `"shift"`, or `"auto"` to choose by platform at lowering.

  Returns:
    `[b, ceil(h / stride), ceil(w / stride), c]`.
  """
  k = kernel.shape[0]
  reach = k // 2 * dilation
  pad = ((reach, reach), (reach, reach))

  def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      pad,
      rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=x.shape[-1],
    )

  def shift(x: jax.Array, kernel: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), *pad, (0, 0)))
    rows, cols = h - 1, w - 1  # the reach of the centre tap's window
    total = jnp.zeros((), x.dtype)
    for i in range(k):
      for j in range(k):
        top, left = i * dilation, j * dilation
        window = lax.slice(
          padded,
          (0, top, left, 0),
          (b, top + rows + 1, left + cols + 1, c),
          (1, stride, stride, 1),
        )
        total = total + window * kernel[i, j, 0]
    return total

  if kind == "conv":
    return conv(x, kernel)
  if kind == "shift":
    return shift(x, kernel)
  if kind == "auto":
    return lax.platform_dependent(x, kernel, cpu=shift, default=conv)
  raise ValueError(
    f"depthwise={kind!r} is unknown; choose one of {', '.join(KINDS)}"
  )


class DepthwiseConv(nnx.Module):
  """`depthwise_conv` with its weights."""

  def __init__(
    self,
    channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    kind: Kind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    shape = (kernel_size, kernel_size, 1, channels)
    self.kernel = nnx.Param(jnp.zeros(shape, jnp.float32))
    self.stride, self.dilation = stride, dilation
    self.kind: Kind = kind
    self.dtype = dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    return depthwise_conv(
      x.astype(self.dtype),
      self.kernel[...].astype(self.dtype),
      stride=self.stride,
      dilation=self.dilation,
      kind=self.kind,
    )
