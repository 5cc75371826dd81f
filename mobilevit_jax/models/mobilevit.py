"""MobileViT (arXiv 2110.02178), as ml-cvnets v0.1 trained it.

Letters used everywhere: `b` images, `h w` map, `c` channels, `d` transformer
width, `p` pixels of a patch (2 x 2 = 4), `n` patches, `k` heads, `e` head
width. Images and maps are `[b, h, w, c]`.
"""

import dataclasses
import functools
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mobilevit_jax.models import layers
from mobilevit_jax.models import transformer
from mobilevit_jax.models.depthwise import DEPTHWISE_KINDS
from mobilevit_jax.models.depthwise import DepthwiseKind

MIN_IMAGE_SIZE = 32  # pixels: below it the last map would have none


@dataclasses.dataclass(frozen=True)
class Variant:
  """One row of the paper's Table 4.

  Attributes:
    channels: output channels of the stem and of stages 1 to 5.
    dims: transformer width of stages 3, 4 and 5.
    expansion: MobileNetV2 expansion factor.
    dropout: rate inside the transformer blocks.
    depths: transformer blocks in stages 3, 4 and 5.
  """

  channels: tuple[int, int, int, int, int, int]
  dims: tuple[int, int, int]
  expansion: int
  dropout: float
  depths: tuple[int, int, int] = (2, 4, 3)


# Paper Table 4 (256 px):          XXS           XS            S
#   stage 3, d x layers          64 x 2        96 x 2       144 x 2
#   stage 4                      80 x 4       120 x 4       192 x 4
#   stage 5                      96 x 3       144 x 3       240 x 3
#   parameters              1,272,024     2,317,848     5,578,632
VARIANTS: dict[str, Variant] = {
  "mobilevit_xxs": Variant(
    (16, 16, 24, 48, 64, 80), (64, 80, 96), expansion=2, dropout=0.05
  ),
  "mobilevit_xs": Variant(
    (16, 32, 48, 64, 80, 96), (96, 120, 144), expansion=4, dropout=0.1
  ),
  "mobilevit_s": Variant(
    (16, 32, 64, 96, 128, 160), (144, 192, 240), expansion=4, dropout=0.1
  ),
}
HEADS = 4
MAX_HEAD_CHANNELS = 960  # more than four times the width of any net here


def unfold(x: jax.Array) -> jax.Array:
  """`[b, h, w, d]`, h and w even, to `[b, p, n, d]`: pixel, then patch.

  Pixel `2 * row + column` of the 2 x 2 patch, patches row by row. Four axes
  at most at any time, since phone delegates refuse more.
  """
  b, h, w, d = x.shape
  # Rows in pairs: [b h/2, 2, w/2, 2 d]. Two neighbours of a row lie in one, so
  # that exchanging the middle axes brings a patch's rows together.
  x = x.reshape(b * h // 2, 2, w // 2, 2 * d).transpose(0, 2, 1, 3)
  # Now each patch's four pixels follow each other: [b, n, p, d]. Attention runs
  # over patches, so pixels move to the front.
  return x.reshape(b, h * w // 4, 4, d).transpose(0, 2, 1, 3)


def fold(x: jax.Array, h: int, w: int) -> jax.Array:
  """Inverse of `unfold`: `[b, p, n, d]` to `[b, h, w, d]`."""
  b, _, _, d = x.shape
  x = x.transpose(0, 2, 1, 3).reshape(b * h // 2, w // 2, 2, 2 * d)
  return x.transpose(0, 2, 1, 3).reshape(b, h, w, d)


def _resize(x: jax.Array, h: int, w: int) -> jax.Array:
  """Bilinear, half-pixel centres: torch's `align_corners=False`."""
  shape = (x.shape[0], h, w, x.shape[-1])
  # JAX antialiases by default when it shrinks, which torch does not.
  return jax.image.resize(x, shape, "bilinear", antialias=False)


class MobileViTBlock(nnx.Module):
  """Local convolutions, attention among same-place pixels, fusion (sec. 3.1).

  `local_rep` ends in a 1x1 convolution with neither norm, activation nor
  bias; `global_rep` ends in a LayerNorm inside the unfold; `fusion` sees the
  block's input first and the global features second.
  """

  def __init__(
    self,
    channels: int,
    dim: int,
    *,
    depth: int,
    dropout: float,
    depthwise: DepthwiseKind = "auto",
    bn_groups: int = 1,
    dtype: DTypeLike = jnp.float32,
  ):
    norm_act = {"kind": depthwise, "bn_groups": bn_groups, "dtype": dtype}
    # The paper's n x n convolution (section 3.1), dense in v1.
    self.local_rep = layers.ConvNormAct(channels, channels, **norm_act)
    # To the transformer's width, by a 1x1 convolution that is linear.
    self.expand = layers.Conv(channels, dim, 1, kind=depthwise, dtype=dtype)
    self.global_rep = nnx.List(
      transformer.TransformerBlock(
        dim, heads=HEADS, ffn_dim=2 * dim, dropout=dropout, dtype=dtype
      )
      for _ in range(depth)
    )
    # ml-cvnets appends it to the transformers, as pre-norm blocks end without a
    # norm.
    self.norm = layers.LayerNorm(dim, dtype=dtype)
    self.project = layers.ConvNormAct(dim, channels, kernel_size=1, **norm_act)
    self.fusion = layers.ConvNormAct(2 * channels, channels, **norm_act)

  def __call__(
    self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> jax.Array:
    y = self.expand(self.local_rep(x, train))
    y = self.project(self._attend_any_size(y, train, rngs), train)
    # Concatenation, not a sum: Figure 1(b). The input comes first, which the
    # weights' order of channels follows.
    return self.fusion(jnp.concatenate([x, y], axis=-1), train)

  def _attend_any_size(
    self, x: jax.Array, train: bool, rngs: nnx.Rngs | None
  ) -> jax.Array:
    """`_attend`, at the next even size where that isn't the map's own."""
    _, h, w, _ = x.shape
    # Patches are 2 x 2. Maps of an odd side occur in training: 160 pixels are 5
    # x 5 in stage 5, and 288 are 9 x 9.
    even_h, even_w = h + h % 2, w + w % 2
    if (even_h, even_w) == (h, w):
      return self._attend(x, train, rngs)
    x = self._attend(_resize(x, even_h, even_w), train, rngs)
    return _resize(x, h, w)

  def _attend(
    self, x: jax.Array, train: bool, rngs: nnx.Rngs | None
  ) -> jax.Array:
    b, h, w, d = x.shape
    # The four places of a patch become part of the batch: pixels attend only to
    # those at the same place of other patches.
    x = unfold(x).reshape(b * 4, h * w // 4, d)
    for block in self.global_rep:
      x = block(x, train, rngs)
    x = self.norm(x).reshape(b, 4, h * w // 4, d)
    return fold(x, h, w)


class Backbone(nnx.Module):
  """What the families share: a stem, then five stages of blocks.

  Attributes:
    BLOCK: class of the blocks that mix pixels.
    head_channels: what the classifier's convolution makes of the last stage;
      None if it has none.
    classifier_dropout: rate before the classifier, of the published recipe.
    channels: widths of the stages.
    dtype: compute type.
  """

  LAYERS = ("stem", "stage1", "stage2", "stage3", "stage4", "stage5")
  BLOCK: ClassVar[type[Any]]
  head_channels: int | None = None
  classifier_dropout = 0.0
  channels: tuple[int, ...]
  dtype: DTypeLike
  stem: layers.ConvNormAct

  def features(
    self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> dict[str, jax.Array]:
    """Outputs of the stages, `"stage1"` (stride 2) to `"stage5"`.

    Raises:
      ValueError: for images that aren't RGB, or have a side under 32 pixels.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
      raise ValueError(f"images must be [b, h, w, 3], not {images.shape}")
    if min(images.shape[1:3]) < MIN_IMAGE_SIZE:
      raise ValueError(
        f"images of {images.shape[1]} x {images.shape[2]} pixels are too "
        f"small; each side needs at least {MIN_IMAGE_SIZE}"
      )
    x = self.stem(images.astype(self.dtype), train)
    outputs = {}
    for name in self.LAYERS[1:]:
      for block in getattr(self, name):
        # Inverted residuals have no dropout, and take no generators.
        rest = (rngs,) if isinstance(block, self.BLOCK) else ()
        x = block(x, train, *rest)
      outputs[name] = x
    return outputs


def check_fields(
  dropout: float, output_stride: int, bn_groups: int, depthwise: str
) -> None:
  """Refuses a backbone's field that is out of range, by its name."""
  layers.check_rates(dropout=dropout)
  layers.check_counts(bn_groups=bn_groups)
  if output_stride not in (8, 16, 32):
    raise ValueError(f"output_stride={output_stride} must be 8, 16 or 32")
  if depthwise not in DEPTHWISE_KINDS:
    allowed = ", ".join(DEPTHWISE_KINDS)
    raise ValueError(f"depthwise={depthwise!r} must be one of {allowed}")


class MobileViT(Backbone):
  """The backbone: stem and five stages; build nets with `create_model`.

  Args:
    variant: widths, from `VARIANTS`.
    dropout: rate in the transformer blocks; None takes the variant's.
    output_stride: 32, or 16 or 8 for dense prediction. As in ml-cvnets the
      strides of the last one or two stages become 1, and only at 8 is one
      convolution dilated: stage 5's depthwise, by 2.
    bn_groups: see `layers.BatchNorm`.
    depthwise: kind of depthwise and 1x1 convolutions; see `models.depthwise`.
    dtype: compute type; parameters stay float32.
  """

  BLOCK: ClassVar[type[Any]] = MobileViTBlock
  classifier_dropout = 0.1

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
    # None is "the published recipe", 0 is a rate.
    dropout = variant.dropout if dropout is None else dropout
    check_fields(dropout, output_stride, bn_groups, depthwise)
    shared = {"depthwise": depthwise, "bn_groups": bn_groups, "dtype": dtype}
    inverted = functools.partial(
      layers.InvertedResidual, expansion=variant.expansion, **shared
    )
    block = functools.partial(self.BLOCK, dropout=dropout, **shared)
    stem, c1, c2, c3, c4, c5 = variant.channels
    d3, d4, d5 = variant.dims
    n3, n4, n5 = variant.depths
    # Strides of stages 4 and 5, for an output stride of 32 (2, 2), 16 (2, 1)
    # and 8 (1, 1).
    stride4 = 1 if output_stride == 8 else 2
    stride5 = 2 if output_stride == 32 else 1
    self.stem = layers.ConvNormAct(
      3, stem, stride=2, kind=depthwise, bn_groups=bn_groups, dtype=dtype
    )
    self.stage1 = nnx.List([inverted(stem, c1)])
    self.stage2 = nnx.List(
      [inverted(c1, c2, stride=2), inverted(c2, c2), inverted(c2, c2)]
    )
    self.stage3 = nnx.List(
      [inverted(c2, c3, stride=2), block(c3, d3, depth=n3)]
    )
    self.stage4 = nnx.List(
      [inverted(c3, c4, stride=stride4), block(c4, d4, depth=n4)]
    )
    # In ml-cvnets the stage that loses its stride keeps the dilation from
    # before it: stage 4 has none, and stage 5 that of stage 4.
    dilation = 2 if output_stride == 8 else 1
    self.stage5 = nnx.List(
      [
        inverted(c4, c5, stride=stride5, dilation=dilation),
        block(c5, d5, depth=n5),
      ]
    )
    self.channels = (c1, c2, c3, c4, c5)
    # The classifier's widening, which detectors and segmenters leave out.
    self.head_channels = min(4 * c5, MAX_HEAD_CHANNELS)
    self.output_stride = output_stride
    self.dtype = dtype
