"""MobileViTv2 (arXiv 2206.02680), as ml-cvnets v0.2 trained it.

MobileViT with an attention whose cost grows with the number of patches, not
with its square, without the fusion convolution, and with one knob: the width.

Letters used everywhere: `b` images, `h w` map, `c` channels, `d` transformer
width, `p` pixels of a patch (2 x 2 = 4), `n` patches. Images and maps are
`[b, h, w, c]`, tokens `[b, p, n, d]`.
Source: `cvnets/modules/{mobilevit_block,transformer}.py`,
`cvnets/layers/linear_attention.py`, `cvnets/models/classification/config/
mobilevit_v2.py`.
"""

import dataclasses
import functools
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mobilevit_jax.models import layers
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models.depthwise import DepthwiseKind

EXPANSION = 2  # of inverted residuals, and of the layers' dense part
DEPTHS = (2, 4, 3)  # transformer layers in stages 3, 4 and 5


@dataclasses.dataclass(frozen=True)
class Variant:
  """The network at one width.

  Attributes:
    width: what the channels of width 1 are multiplied by.
  """

  width: float
  # int() cuts off, but at all seven widths the products are whole numbers.

  @property
  def channels(self) -> tuple[int, ...]:
    """Output channels of the stem and of stages 1 to 5."""
    return tuple(int(self.width * c) for c in (32, 64, 128, 256, 384, 512))

  @property
  def dims(self) -> tuple[int, ...]:
    """Transformer width of stages 3, 4 and 5."""
    return tuple(int(self.width * d) for d in (128, 192, 256))


# ml-cvnets rounds widths to multiples of 8 or 16, and keeps the stem from 16 to
# 64: at these seven that changes nothing.
VARIANTS: dict[str, Variant] = {
  "mobilevitv2_050": Variant(0.5),  #   1,370,593 parameters
  "mobilevitv2_075": Variant(0.75),  #  2,866,009
  "mobilevitv2_100": Variant(1.0),  #   4,901,841
  "mobilevitv2_125": Variant(1.25),  #  7,478,089
  "mobilevitv2_150": Variant(1.5),  #  10,594,753
  "mobilevitv2_175": Variant(1.75),  # 14,251,833
  "mobilevitv2_200": Variant(2.0),  #  18,449,329
}


class SeparableAttention(nnx.Module):
  """Attention of every patch to one context (sec. 3.2).

  For each of the `p` places by itself, a softmax over the patches gives them
  scores, and the sum of their keys by these scores is the context, which
  multiplies every patch's value. No token meets another one.
  """

  def __init__(self, dim: int, **fields: Any):
    # In this order: 1 channel of scores, d of keys, d of values.
    self.qkv = layers.Conv(dim, 1 + 2 * dim, 1, use_bias=True, **fields)
    self.out = layers.Conv(dim, dim, 1, use_bias=True, **fields)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.attend(x)[0]

  def attend(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output `[b, p, n, d]`, and context scores `[b, p, n]` that sum to 1."""
    query, key, value = jnp.split(self.qkv(x), (1, 1 + x.shape[-1]), axis=-1)
    # In float32 or wider: half precision would lose the small scores.
    wide = layers.at_least_float32(x.dtype)
    # Axis 2 is the patches: each of the four places has scores of its own.
    scores = jax.nn.softmax(query.astype(wide), axis=2)
    # Section 3.2: c_v = sum over i of c_s(i) x_K(i), [b, p, 1, d].
    context = jnp.sum(scores * key.astype(wide), axis=2, keepdims=True)
    # Then y = (c_v * ReLU(x W_V)) W_O, an element-wise product that is
    # broadcast over the patches, so the cost is linear in their number.
    y = self.out(jax.nn.relu(value) * context.astype(value.dtype))
    return y, scores[..., 0]


class SeparableBlock(nnx.Module):
  """`x + drop(attention(norm(x)))`, then `x + drop(ffn(norm(x)))`."""

  def __init__(self, dim: int, *, dropout: float, **fields: Any):
    hidden = EXPANSION * dim
    # One group over all pixels and channels, called "layer norm 2d" by
    # ml-cvnets: LayerNorm over the channels alone would not match its weights'
    # answers.
    self.attention_norm = layers.GroupNorm(dim, dtype=fields["dtype"])
    self.attention = SeparableAttention(dim, **fields)
    self.ffn_norm = layers.GroupNorm(dim, dtype=fields["dtype"])
    self.ffn_in = layers.Conv(dim, hidden, 1, use_bias=True, **fields)
    self.ffn_out = layers.Conv(hidden, dim, 1, use_bias=True, **fields)
    self.dropout = nnx.Dropout(dropout)

  def __call__(
    self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> jax.Array:
    def drop(y: jax.Array) -> jax.Array:
      return self.dropout(y, deterministic=not train, rngs=rngs)

    x = x + drop(self.attention(self.attention_norm(x)))
    y = jax.nn.silu(self.ffn_in(self.ffn_norm(x)))
    return x + drop(self.ffn_out(y))


class MobileViTv2Block(nnx.Module):
  """Local convolutions, separable attention, projection.

  Nothing is added to the result nor concatenated with it. A map of odd height
  or width is enlarged to an even one first, and stays so.
  """

  def __init__(
    self,
    channels: int,
    dim: int,
    *,
    depth: int,
    dropout: float,
    dilation: int = 1,
    depthwise: DepthwiseKind = "auto",
    bn_groups: int = 1,
    dtype: DTypeLike = jnp.float32,
  ):
    fields: dict[str, Any] = {"kind": depthwise, "dtype": dtype}
    self.local_rep = layers.ConvNormAct(
      channels,
      channels,
      depthwise=True,
      dilation=dilation,
      bn_groups=bn_groups,
      **fields,
    )
    self.expand = layers.Conv(channels, dim, 1, **fields)
    self.global_rep = nnx.List(
      SeparableBlock(dim, dropout=dropout, **fields) for _ in range(depth)
    )
    self.norm = layers.GroupNorm(dim, dtype=dtype)
    self.project = layers.ConvNormAct(
      dim,
      channels,
      kernel_size=1,
      activation=None,
      # Linear: v2's blocks end without an activation.
      bn_groups=bn_groups,
      **fields,
    )

  def __call__(
    self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> jax.Array:
    local = self.expand(self.local_rep(even_size(x), train))
    return self.project(self._attend(local, train, rngs), train)

  def _attend(
    self, x: jax.Array, train: bool, rngs: nnx.Rngs | None
  ) -> jax.Array:
    _, h, w, _ = x.shape
    x = mobilevit.unfold(x)
    for block in self.global_rep:
      x = block(x, train, rngs)
    return mobilevit.fold(self.norm(x), h, w)


def even_size(x: jax.Array) -> jax.Array:
  """One row and column more where there is an odd number of them, bilinearly.

  Corners stay corners (torch's `align_corners=True`), so new row i of h + 1
  lies at i (h - 1) / h: between the old rows i - 1 and i, by i / h.
  """
  for axis in (1, 2):
    size = x.shape[axis]
    if size % 2:
      # Between old rows i - 1 and i, in parts: `share` of the earlier one.
      share = jnp.arange(size + 1, dtype=x.dtype) / size
      share = jnp.expand_dims(share, tuple(range(1, 4 - axis)))
      # The map shifted by one at either end: row i - 1, and row i.
      pads = [[(0, 0)] * axis + [end] for end in ((1, 0), (0, 1))]
      before, after = (jnp.pad(x, p + [(0, 0)] * (3 - axis)) for p in pads)
      x = share * before + (1 - share) * after
  return x


class MobileViTv2(mobilevit.Backbone):
  """The backbone: stem and five stages; build nets with `create_model`.

  Args:
    variant: widths, from `VARIANTS`.
    dropout: rate in the transformer layers; None takes the recipe's, 0.
    output_stride: 32, or 16 or 8 for dense prediction. The strides of the last
      one or two stages become 1, and the blocks' depthwise convolutions are
      dilated in their place, by 2 and then 4.
    bn_groups: see `layers.BatchNorm`.
    depthwise: kind of depthwise and 1x1 convolutions; see `models.depthwise`.
    dtype: compute type; parameters stay float32.
  """

  BLOCK: ClassVar[type[Any]] = MobileViTv2Block

  def __init__(
    self,
    variant: Variant,
    *,
    dropout: float | None = None,
    output_stride: int = 32,
    bn_groups: int = 1,
    depthwise: DepthwiseKind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    # v2's recipe has no dropout in its layers (ml-cvnets' `mobilevit_v2.py`).
    dropout = dropout or 0.0
    mobilevit.check_fields(dropout, output_stride, bn_groups, depthwise)
    self.output_stride = output_stride
    shared = {"depthwise": depthwise, "bn_groups": bn_groups, "dtype": dtype}
    inverted = functools.partial(
      layers.InvertedResidual, expansion=EXPANSION, **shared
    )
    block = functools.partial(self.BLOCK, dropout=dropout, **shared)
    stem, c1, c2, c3, c4, c5 = variant.channels
    d3, d4, d5 = variant.dims
    n3, n4, n5 = DEPTHS
    # Where a stride is left out, the blocks' taps reach as far as before it: a
    # dilation of 2 for one stride, of 4 for two. ml-cvnets gives it to the
    # block's own convolution, unlike in v1.
    reach4 = 2 if output_stride == 8 else 1
    reach5 = 32 // output_stride
    self.stem = layers.ConvNormAct(
      3, stem, stride=2, kind=depthwise, bn_groups=bn_groups, dtype=dtype
    )
    self.stage1 = nnx.List([inverted(stem, c1)])
    self.stage2 = nnx.List([inverted(c1, c2, stride=2), inverted(c2, c2)])
    self.stage3 = nnx.List(
      [inverted(c2, c3, stride=2), block(c3, d3, depth=n3)]
    )
    self.stage4 = nnx.List(
      [
        inverted(c3, c4, stride=2 // reach4),
        block(c4, d4, depth=n4, dilation=reach4),
      ]
    )
    self.stage5 = nnx.List(
      [
        inverted(c4, c5, stride=1 if reach5 > 1 else 2, dilation=reach4),
        block(c5, d5, depth=n5, dilation=reach5),
      ]
    )
    self.channels = (c1, c2, c3, c4, c5)
    self.dtype = dtype
