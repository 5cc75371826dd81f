"""Convolutions that are fast on every platform: depthwise, 1x1, dilated."""

from collections.abc import Callable, Iterator
import functools
from typing import Literal

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jax.typing import DTypeLike

# "conv" is XLA's operator, "shift" the form for CPU, "auto" whichever suits the
# platform that the program is lowered for.
DepthwiseKind = Literal["auto", "conv", "shift"]
DEPTHWISE_KINDS: tuple[DepthwiseKind, ...] = ("auto", "conv", "shift")


def depthwise_conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  dilation: int = 1,
  kind: DepthwiseKind = "auto",
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
  # torch's symmetric padding. XLA's "SAME" would pad a stride-2 convolution of
  # an even side by (0, 1), and shift every window by a pixel.
  reach = kernel.shape[0] // 2 * dilation
  pad = (reach, reach)

  def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      (pad, pad),
      rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=x.shape[-1],
    )

  def shift(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _shift(x, kernel, stride, dilation)

  return _choose(kind, conv, shift, x, kernel)


def pointwise_conv(
  x: jax.Array, kernel: jax.Array, *, kind: DepthwiseKind = "auto"
) -> jax.Array:
  """1x1 convolution without bias, a matrix product of the pixels on CPU.

  There XLA computes the kernel's gradient as a convolution over the whole
  batch, several times slower than the product.

  Args:
    x: `[b, h, w, c]`.
    kernel: `[1, 1, c, out]`.
    kind: as of `depthwise_conv`; `"shift"` is the product.

  Returns:
    `[b, h, w, out]`.
  """

  def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Two axes: with four, XLA's product on CPU is three times slower.
    y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return y.reshape(*x.shape[:-1], kernel.shape[-1])

  return _choose(kind, conv, product, x, kernel)


def dilated_conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  dilation: int,
  kind: DepthwiseKind = "auto",
) -> jax.Array:
  """Convolution with distant taps, padded to keep the size, without bias.

  Of a map of 24 x 24 pixels, the outer taps of DeepLabv3's 3x3 convolutions
  see half or nothing: rates of 12, 24 and 36 reach for the padding. XLA's
  convolution on CPU multiplies those zeros, with a kernel that it spreads to 73
  x 73. As a matrix product for each tap, of the pixels that it sees, a step
  over these three branches took a tenth of the time (16 images, 320 to 128
  channels, 2 cores); at distances of 1 and 2 it was no faster.

  Args:
    x: `[b, h, w, c]`.
    kernel: `[k, k, c, out]`, k odd.
    dilation: distance between the taps, in pixels.
    kind: as of `depthwise_conv`; `"shift"` is the products.

  Returns:
    `[b, h, w, out]`.
  """
  # With this much padding on both sides the map keeps its size at stride 1.
  reach = kernel.shape[0] // 2 * dilation
  pad = (reach, reach)

  def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      (pad, pad),
      rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  def products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    k = kernel.shape[0]
    total = jnp.zeros((b, h, w, kernel.shape[-1]), x.dtype)
    for i in range(k):
      for j in range(k):
        # Output pixel (y, x) takes input pixel (y + down, x + right).
        down, right = (tap * dilation - reach for tap in (i, j))
        if abs(down) >= h or abs(right) >= w:
          continue  # sees padding alone
        # The part of the input that this tap sees, without the padding.
        top, left = max(down, 0), max(right, 0)
        bottom, end = min(h, h + down), min(w, w + right)
        seen = lax.slice(x, (0, top, left, 0), (b, bottom, end, c))
        y = pointwise_conv(seen, kernel[i : i + 1, j : j + 1], kind="shift")
        # Where that part's products lie in the output.
        rows, columns = top - down, left - right
        total += jnp.pad(
          y,
          (
            (0, 0),
            (rows, h - rows - y.shape[1]),
            (columns, w - columns - y.shape[2]),
            (0, 0),
          ),
        )
    return total

  return _choose(kind, conv, products, x, kernel)


def _choose(
  kind: DepthwiseKind,
  native: Callable[..., jax.Array],
  on_cpu: Callable[..., jax.Array],
  x: jax.Array,
  kernel: jax.Array,
) -> jax.Array:
  if kind == "conv":
    return native(x, kernel)
  if kind == "shift":
    return on_cpu(x, kernel)
  if kind == "auto":
    # Both branches are traced, and the platform's one is kept at lowering, so a
    # program that is exported for several platforms has all of them.
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=native)
  raise ValueError(
    f"depthwise={kind!r} is unknown; choose one of {', '.join(DEPTHWISE_KINDS)}"
  )


def _windows(
  x: jax.Array, k: int, height: int, width: int, stride: int, dilation: int
) -> Iterator[jax.Array]:
  """What each of the k x k taps sees: `height` x `width` pixels, row by row."""
  b, _, _, c = x.shape
  reach = k // 2 * dilation
  # Padded once for all taps; each tap is then a slice of the same array.
  padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  for i in range(k):
    for j in range(k):
      top, left = i * dilation, j * dilation
      # The last pixel that the tap sees, and one more: slices are half open.
      bottom = top + stride * (height - 1) + 1
      right = left + stride * (width - 1) + 1
      yield lax.slice(
        padded,
        (0, top, left, 0),
        (b, bottom, right, c),
        (1, stride, stride, 1),
      )


def _correlate(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
  _, h, w, c = x.shape
  # Ceiling division, as the padded convolution has it.
  size = -(-h // stride), -(-w // stride)
  k = kernel.shape[0]
  taps = kernel.reshape(k * k, c)
  # A scalar zero: XLA fuses the nine multiply-adds into one loop over the map
  # only if there is no array to begin with.
  total = jnp.zeros((), x.dtype)
  for tap, window in enumerate(_windows(x, k, *size, stride, dilation)):
    total = total + window * taps[tap]
  return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shift(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
  """A multiply-add for each tap's shift, with a gradient of the same form.

  Derived automatically, the gradient of x would be as many padded arrays and
  their sum, each of them written to memory.
  """
  return _correlate(x, kernel, stride, dilation)


def _shift_forward(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _correlate(x, kernel, stride, dilation), (x, kernel)


def _shift_backward(
  stride: int,
  dilation: int,
  saved: tuple[jax.Array, jax.Array],
  grad: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  k = kernel.shape[0]
  height, width = grad.shape[1:3]
  # For y = sum over taps t of w_t x[s p + t], the gradients are dx[q] = sum
  # over t of w_t dy[(q - t) / s] and dw_t = sum over p of dy[p] x[s p + t] (p,
  # q pixels, s the stride).
  # Every gradient back at its own pixel of x, zeros between.
  spread = [(0, 0, 0)] * 4
  for axis in (1, 2):
    missing = x.shape[axis] - 1 - stride * (grad.shape[axis] - 1)
    spread[axis] = (0, missing, stride - 1)
  # The first is a correlation with the kernel turned by 180 degrees, of stride
  # 1 over the spread gradient.
  grad_x = _correlate(
    lax.pad(grad, jnp.zeros((), grad.dtype), spread),
    kernel[::-1, ::-1],
    1,
    dilation,
  )
  sums = [
    jnp.sum(window * grad, axis=(0, 1, 2))
    for window in _windows(x, k, height, width, stride, dilation)
  ]
  return grad_x, jnp.stack(sums).reshape(kernel.shape)


_shift.defvjp(_shift_forward, _shift_backward)


class DepthwiseConv(nnx.Module):
  """`depthwise_conv` with its weights."""

  def __init__(
    self,
    channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    kind: DepthwiseKind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    shape = (kernel_size, kernel_size, 1, channels)
    self.kernel = nnx.Param(jnp.zeros(shape, jnp.float32))
    self.stride, self.dilation = stride, dilation
    self.kind: DepthwiseKind = kind
    self.dtype = dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    return depthwise_conv(
      x.astype(self.dtype),
      self.kernel[...].astype(self.dtype),
      stride=self.stride,
      dilation=self.dilation,
      kind=self.kind,
    )
