"""MobileViTv3 (arXiv 2209.15159): another fusion in the blocks of v1 and v2.

Both blocks fuse what their local convolutions give, in place of their input,
with what attention gives, by a 1x1 convolution, and add their input to the
result. Source: github.com/micronDLA/MobileViTv3, whose folders `MobileViTv3-v1`
and `-v2` lie over ml-cvnets v0.1 and v0.2.

The two concatenate in another order: the block of v1 has the local features
first, that of v2 last. Letters as in `models.mobilevit`.
"""

from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax.models import layers
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import mobilevit_v2

# Table 1 of the paper: wider than MobileViT, with its transformer widths.
# Parameters:                   1,249,448      2,490,360      5,763,912
VARIANTS: dict[str, mobilevit.Variant] = {
  "mobilevitv3_xxs": mobilevit.Variant(
    (16, 16, 24, 64, 80, 128), (64, 80, 96), expansion=2, dropout=0.05
  ),
  "mobilevitv3_xs": mobilevit.Variant(
    (16, 32, 48, 96, 160, 160), (96, 120, 144), expansion=4, dropout=0.1
  ),
  "mobilevitv3_s": mobilevit.Variant(
    (16, 32, 64, 128, 256, 320), (144, 192, 240), expansion=4, dropout=0.1
  ),
}
# The paper's "-L2": two transformer blocks in stage 4 in place of four.
#                               1,145,288      2,257,320      5,169,864
VARIANTS_L2: dict[str, mobilevit.Variant] = {
  f"{name}_l2": mobilevit.Variant(
    variant.channels,
    variant.dims,
    expansion=variant.expansion,
    dropout=variant.dropout,
    depths=(2, 2, 3),
  )
  for name, variant in VARIANTS.items()
}
VARIANTS_V2: dict[str, mobilevit_v2.Variant] = {
  "mobilevitv3_050": mobilevit_v2.Variant(0.5),  #  1,429,985 parameters
  "mobilevitv3_075": mobilevit_v2.Variant(0.75),  # 2,999,641
  "mobilevitv3_100": mobilevit_v2.Variant(1.0),  #  5,139,409
}


class BlockOfV1(mobilevit.MobileViTBlock):
  """MobileViT's block with the other fusion."""

  def __init__(self, channels: int, dim: int, **fields: Any):
    super().__init__(channels, dim, **fields)
    norm_act = {
      "kind": fields.get("depthwise", "auto"),
      "bn_groups": fields.get("bn_groups", 1),
      "dtype": fields.get("dtype", jnp.float32),
    }
    # Section 3.1 of the paper: a depthwise 3x3 convolution in place of the
    # dense one pays for the wider stages.
    self.local_rep = layers.ConvNormAct(
      channels, channels, depthwise=True, **norm_act
    )
    self.fusion = layers.ConvNormAct(
      dim + channels, channels, kernel_size=1, **norm_act
    )

  def __call__(
    self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> jax.Array:
    local = self.expand(self.local_rep(x, train))
    y = self.project(self._attend_any_size(local, train, rngs), train)
    # The block's input is added at the end, as in a ResNet block, which lets
    # the gradient past the attention (section 3.1).
    return x + self.fusion(jnp.concatenate([local, y], axis=-1), train)


class BlockOfV2(mobilevit_v2.MobileViTv2Block):
  """MobileViTv2's block with the other fusion."""

  def __init__(self, channels: int, dim: int, **fields: Any):
    super().__init__(channels, dim, **fields)
    self.project = layers.ConvNormAct(
      2 * dim,
      channels,
      kernel_size=1,
      activation=None,
      kind=fields.get("depthwise", "auto"),
      bn_groups=fields.get("bn_groups", 1),
      dtype=fields.get("dtype", jnp.float32),
    )

  def __call__(
    self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> jax.Array:
    x = mobilevit_v2.even_size(x)
    local = self.expand(self.local_rep(x, train))
    y = self._attend(local, train, rngs)
    return x + self.project(jnp.concatenate([y, local], axis=-1), train)


# Classes of their own, since a net's family is told by its backbone's.


class MobileViTv3(mobilevit.MobileViT):
  """MobileViT's backbone of the new blocks; see there."""

  BLOCK: ClassVar[type[Any]] = BlockOfV1


class MobileViTv3L2(MobileViTv3):
  """The shallower one."""


class MobileViTv3OfV2(mobilevit_v2.MobileViTv2):
  """MobileViTv2's backbone of the new blocks; see there."""

  BLOCK: ClassVar[type[Any]] = BlockOfV2
