"""Convolutions, dense layers, norms and the inverted residual.

Every image tensor is `[b, h, w, c]`. Parameters are float32 and cast to a
layer's compute `dtype`. Layers are built with zeros for weights, abstractly;
`models.init` draws the values.
Sources: MobileNetV2 (arXiv 1801.04381), ml-cvnets v0.1 `cvnets/modules/
mobilenetv2.py` and `cvnets/layers/conv_layer.py`.
"""

from typing import Any, Literal

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mobilevit_jax.models import normalize
from mobilevit_jax.models.depthwise import DepthwiseConv
from mobilevit_jax.models.depthwise import DepthwiseKind
from mobilevit_jax.models.depthwise import dilated_conv
from mobilevit_jax.models.depthwise import pointwise_conv

Activation = Literal["silu", "relu", "relu6", "hard_swish"]
ACTIVATIONS = {
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
  "relu6": jax.nn.relu6,
  "hard_swish": jax.nn.hard_swish,
}


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
  """The type that statistics, softmax and logits are computed in."""
  return jnp.promote_types(dtype, jnp.float32)


def check_rates(**rates: float) -> None:
  """Refuses a dropout rate out of range, by its name."""
  for name, rate in rates.items():
    if not 0 <= rate < 1:
      raise ValueError(f"{name}={rate} must be at least 0 and below 1")


def check_counts(**counts: int) -> None:
  """Refuses a number of things below 1, by its name."""
  for name, count in counts.items():
    if count < 1:
      raise ValueError(f"{name}={count} must be at least 1")


class Conv(nnx.Module):
  """Convolution, padded symmetrically as torch pads.

  ("SAME" would place the window of a stride-2 convolution differently.)
  `kind` is how one is computed that is 1x1, or whose taps are more than two
  pixels apart: see `depthwise.pointwise_conv` and `dilated_conv`.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    use_bias: bool = False,
    kind: DepthwiseKind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    shape = (kernel_size, kernel_size, in_channels, out_channels)
    self.kernel = nnx.Param(jnp.zeros(shape, jnp.float32))
    if use_bias:
      self.bias = nnx.Param(jnp.zeros((out_channels,), jnp.float32))
    self.stride, self.dilation, self.dtype = stride, dilation, dtype
    self.use_bias = use_bias
    self.kind: DepthwiseKind = kind

  def __call__(self, x: jax.Array) -> jax.Array:
    y = self._convolve(x.astype(self.dtype))
    return y + self.bias[...].astype(self.dtype) if self.use_bias else y

  def _convolve(self, x: jax.Array) -> jax.Array:
    kernel = self.kernel[...].astype(self.dtype)
    # kernel [1, 1, c, out]: no neighbours, so a matrix product will do.
    if kernel.shape[0] == self.stride == 1:
      return pointwise_conv(x, kernel, kind=self.kind)
    # From 3 pixels on, the dilated form is the faster one on CPU; at 2 it
    # isn't.
    if self.stride == 1 and self.dilation > 2:
      return dilated_conv(x, kernel, dilation=self.dilation, kind=self.kind)
    pad = kernel.shape[0] // 2 * self.dilation
    return lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      ((pad, pad), (pad, pad)),
      rhs_dilation=(self.dilation, self.dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class Linear(nnx.Module):
  """Dense layer with bias over the last axis."""

  def __init__(
    self, in_dim: int, out_dim: int, *, dtype: DTypeLike = jnp.float32
  ):
    self.kernel = nnx.Param(jnp.zeros((in_dim, out_dim), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((out_dim,), jnp.float32))
    self.dtype = dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.kernel[...].astype(self.dtype)
    return x.astype(self.dtype) @ kernel + self.bias[...].astype(self.dtype)


class LayerNorm(nnx.Module):
  """Layer normalisation over the last axis, statistics in float32 or wider.

  eps is torch's 1e-5 (Flax's default is 1e-6).
  """

  def __init__(
    self, dim: int, *, epsilon: float = 1e-5, dtype: DTypeLike = jnp.float32
  ):
    self.scale = nnx.Param(jnp.ones((dim,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((dim,), jnp.float32))
    self.epsilon, self.dtype = epsilon, dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    # mean((x - mean)^2), not mean(x^2) - mean^2: the second cancels digits when
    # the mean is large.
    x = x.astype(at_least_float32(x.dtype))
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    var = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    y = x * lax.rsqrt(var + self.epsilon) * self.scale[...] + self.bias[...]
    return y.astype(self.dtype)


class GroupNorm(nnx.Module):
  """GroupNorm of one group: over an image's pixels and channels together.

  Statistics are the biased ones, in float32 or wider; scale and bias are the
  channels' own. (ml-cvnets calls it `layer_norm_2d`, and it is no LayerNorm.)
  """

  def __init__(
    self, dim: int, *, epsilon: float = 1e-5, dtype: DTypeLike = jnp.float32
  ):
    self.scale = nnx.Param(jnp.ones((dim,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((dim,), jnp.float32))
    self.epsilon, self.dtype = epsilon, dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises `[b, ..., d]` over all axes but the first."""
    # No group's mean is taken over single channels: ml-cvnets' `layer_norm_2d`
    # is torch's GroupNorm(1).
    axes = tuple(range(1, x.ndim))
    x = x.astype(at_least_float32(x.dtype))
    x = x - jnp.mean(x, axis=axes, keepdims=True)
    var = jnp.mean(jnp.square(x), axis=axes, keepdims=True)
    y = x * lax.rsqrt(var + self.epsilon) * self.scale[...] + self.bias[...]
    return y.astype(self.dtype)


class BatchNorm(nnx.Module):
  """Batch normalisation with torch's statistics and the paper's groups.

  Flax's layer keeps the biased running variance and can't split a batch. Here
  the running variance is the unbiased one, as torch's, and a training batch
  is split into `groups` equal, contiguous parts that are normalised each by
  its own statistics: `groups=8` gives the unsynchronised BatchNorm of the
  paper's eight GPUs, whatever the devices; `groups=1` uses the whole batch.
  The running statistics follow the mean over the groups.

  Statistics are computed in float32 or wider. eps 1e-5 and momentum 0.1 are
  torch's defaults (`cvnets/layers/normalization/batch_norm.py`).
  """

  def __init__(
    self,
    channels: int,
    *,
    groups: int = 1,
    momentum: float = 0.1,
    epsilon: float = 1e-5,
    dtype: DTypeLike = jnp.float32,
  ):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
    self.mean = nnx.BatchStat(jnp.zeros((channels,), jnp.float32))
    self.var = nnx.BatchStat(jnp.ones((channels,), jnp.float32))
    self.groups, self.momentum, self.epsilon = groups, momentum, epsilon
    self.dtype = dtype

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Normalises `[b, h, w, c]`; `train` uses and records its statistics."""
    wide = at_least_float32(x.dtype)
    # Evaluation: y = scale (x - mean) / sqrt(var + eps) + bias, with the
    # running statistics. Exports fold this into the convolution before it.
    if not train:
      scale = self.scale[...] * lax.rsqrt(self.var[...] + self.epsilon)
      y = (x.astype(wide) - self.mean[...]) * scale + self.bias[...]
      return y.astype(self.dtype)
    b, h, w, c = x.shape
    if b % self.groups:
      raise ValueError(
        f"bn_groups={self.groups} does not divide a batch of {b} images"
      )
    # Two steps, so that a batch sharded over devices stays where it is: the
    # first only splits the leading axis, the second merges unsharded ones.
    grouped = x.astype(wide).reshape(self.groups, b // self.groups, h * w, c)
    y, mean, var = normalize.batch_norm(
      grouped, self.scale[...], self.bias[...], self.epsilon
    )
    # Bessel's correction: torch divides the running variance by n - 1, but the
    # one that normalises by n. A group of one value has no correction.
    size = b // self.groups * h * w
    self._record(mean, var * (size / max(size - 1, 1)))
    return y.reshape(x.shape).astype(self.dtype)

  def _record(self, mean: jax.Array, var: jax.Array) -> None:
    # running += momentum (seen - running), torch's sense of momentum: 0.1 of
    # what is new.
    for stat, seen in ((self.mean, mean), (self.var, var)):
      seen = jnp.mean(seen, axis=(0, 1, 2))
      stat[...] += self.momentum * (seen.astype(stat.dtype) - stat[...])


class ConvNormAct(nnx.Module):
  """Convolution, BatchNorm and an activation, if there is one.

  `depthwise` convolves each channel by itself, with taps `dilation` apart;
  other convolutions have neither.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    activation: Activation | None = "silu",
    depthwise: bool = False,
    dilation: int = 1,
    kind: DepthwiseKind = "auto",
    bn_groups: int = 1,
    dtype: DTypeLike = jnp.float32,
  ):
    fields: dict[str, Any] = {"stride": stride, "dilation": dilation}
    fields |= {"kind": kind, "dtype": dtype}
    # A depthwise convolution keeps its channels: `in_channels` are both.
    if depthwise:
      self.conv = DepthwiseConv(in_channels, kernel_size=kernel_size, **fields)
    else:
      self.conv = Conv(in_channels, out_channels, kernel_size, **fields)
    self.norm = BatchNorm(out_channels, groups=bn_groups, dtype=dtype)
    self.activation: Activation | None = activation

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    x = self.norm(self.conv(x), train)
    return ACTIVATIONS[self.activation](x) if self.activation else x


class InvertedResidual(nnx.Module):
  """MobileNetV2's block: expand 1x1, depthwise 3x3, project 1x1 linearly.

  The input is added where neither the stride nor the width changes it, and
  nothing is expanded where `expansion` is 1.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    *,
    expansion: int,
    stride: int = 1,
    dilation: int = 1,
    depthwise: DepthwiseKind = "auto",
    activation: Activation = "silu",
    bn_groups: int = 1,
    dtype: DTypeLike = jnp.float32,
  ):
    hidden = in_channels * expansion  # a multiple of 8 in every variant
    # Expansion, then depthwise, then a linear bottleneck: an activation after
    # the last convolution would lose what it sets to zero (MobileNetV2, section
    # 3.2).
    norm = {"kind": depthwise, "bn_groups": bn_groups, "dtype": dtype}
    if expansion != 1:
      self.expand = ConvNormAct(
        in_channels, hidden, kernel_size=1, activation=activation, **norm
      )
    self.depthwise = DepthwiseConv(
      hidden, stride=stride, dilation=dilation, kind=depthwise, dtype=dtype
    )
    self.norm = BatchNorm(hidden, groups=bn_groups, dtype=dtype)
    self.project = ConvNormAct(
      hidden, out_channels, kernel_size=1, activation=None, **norm
    )
    self.expansion = expansion
    self.activation: Activation = activation
    # The shortcut needs equal shapes, so a stage's first block, which changes
    # stride or width, has none.
    self.residual = stride == 1 and in_channels == out_channels

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    y = self.expand(x, train) if self.expansion != 1 else x
    y = ACTIVATIONS[self.activation](self.norm(self.depthwise(y), train))
    y = self.project(y, train)
    return x + y if self.residual else y
