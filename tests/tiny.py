"""A family of one net of the real blocks that compiles in seconds."""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from mobilevit_jax import models
from mobilevit_jax.models import init
from mobilevit_jax.models import layers
from mobilevit_jax.models import mobilevit


class TinyBackbone(nnx.Module):
  """Stem, inverted residual, MobileViT block."""

  LAYERS = ("stem", "down", "block")
  head_channels = 32
  classifier_dropout = 0.0

  def __init__(
    self,
    variant=None,
    *,
    dropout=None,
    output_stride=32,
    bn_groups=1,
    depthwise="auto",
    dtype=jnp.float32,
  ):
    del variant
    kwargs = {"bn_groups": bn_groups, "dtype": dtype}
    self.stem = layers.ConvNormAct(3, 8, stride=2, **kwargs)
    self.down = layers.InvertedResidual(
      8, 8, expansion=2, stride=2, depthwise=depthwise, **kwargs
    )
    self.block = mobilevit.MobileViTBlock(
      8, 8, depth=1, dropout=dropout or 0.0, **kwargs
    )
    self.channels, self.output_stride = (8,), output_stride

  def features(
    self,
    images: jax.Array,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> dict[str, jax.Array]:
    x = self.down(self.stem(images, train), train)
    return {"stage5": self.block(x, train, rngs)}


# To be set as `models.FAMILIES["tiny"]` while a test runs.
FAMILY = models.Family(
  name="tiny",
  backbone=TinyBackbone,
  variants={"tiny": None},
  init=init.draw,
  block=mobilevit.MobileViTBlock,
  bgr=(),
  smallest=4,
  patch_sizes=((2, 2),),
  reference="none",
)


def abstract_net(**fields: Any) -> models.Net:
  """The net without weights: 4 classes, no dropout."""
  fields = {"num_classes": 4, "classifier_dropout": 0.0, **fields}
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.FAMILIES, "tiny", FAMILY)
    return models.abstract_model("tiny", **fields)


def net(seed: int = 0, **fields: Any) -> models.Net:
  """The net with its first weights."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.FAMILIES, "tiny", FAMILY)
    return models.initialize(abstract_net(**fields), seed)


def published_families() -> dict[str, models.Family]:
  """The package's own rows, whichever tiny ones a test's configuration set."""
  return {
    name: family
    for name, family in models.FAMILIES.items()
    if not name.startswith("tiny")
  }
