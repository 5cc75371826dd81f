"""A net of the real blocks that compiles in seconds."""

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax.models import layers
from mobilevit_jax.models import mobilevit


class TinyNet(nnx.Module):
  """Stem, inverted residual, MobileViT block, classifier."""

  def __init__(
    self,
    *,
    num_classes=4,
    dropout=0.0,
    classifier_dropout=0.0,
    bn_groups=1,
    dtype=jnp.float32,
    output_stride=32,
    depthwise="auto",
  ):
    del classifier_dropout, output_stride
    kwargs = {"bn_groups": bn_groups, "dtype": dtype}
    self.stem = layers.ConvNormAct(3, 8, stride=2, **kwargs)
    self.down = layers.InvertedResidual(
      8, 8, expansion=2, stride=2, depthwise=depthwise, **kwargs
    )
    self.block = mobilevit.MobileViTBlock(
      8, 8, depth=1, dropout=dropout, **kwargs
    )
    self.classifier = layers.Linear(8, num_classes)

  def __call__(
    self,
    images: jax.Array,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> jax.Array:
    x = self.down(self.stem(images, train), train)
    return self.classifier(jnp.mean(self.block(x, train, rngs), axis=(1, 2)))
