"""MobileNetV2 (arXiv 1801.04381), the CNN that MobileViT is measured against.

A yardstick for `python -m benchmarks infer`, and not among
`create_model`'s nets: it has no recipe, and no weights, of ours.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax.models import depthwise as dw
from mobilevit_jax.models import layers

# The paper's Table 2, a row a stage of ours ending before the next stride:
# (expansion t, channels c, repeats n, first stride s); 3,504,872 parameters.
_STAGES = (
  ((1, 16, 1, 1),),
  ((6, 24, 2, 2),),
  ((6, 32, 3, 2),),
  ((6, 64, 4, 2), (6, 96, 3, 1)),
  ((6, 160, 3, 2), (6, 320, 1, 1)),
)
_STEM, _HEAD = 32, 1280


class MobileNetV2(nnx.Module):
  """The classifier of width 1.0, with MobileViT's names for its parts."""

  def __init__(self, *, num_classes: int = 1000, depthwise: dw.Kind = "auto"):
    self.stem = layers.ConvNormAct(3, _STEM, stride=2, activation="relu6")
    width = _STEM
    for number, rows in enumerate(_STAGES, start=1):
      blocks = []
      for expansion, channels, repeats, stride in rows:
        for index in range(repeats):
          block = layers.InvertedResidual(
            width,
            channels,
            expansion=expansion,
            stride=stride if index == 0 else 1,
            depthwise=depthwise,
            activation="relu6",
          )
          blocks.append(block)
          width = channels
      setattr(self, f"stage{number}", nnx.List(blocks))
    self.head = layers.ConvNormAct(
      width, _HEAD, kernel_size=1, activation="relu6", kind=depthwise
    )
    self.classifier = layers.Linear(_HEAD, num_classes)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Logits `[b, num_classes]` of RGB images `[b, h, w, 3]` in [0, 1]."""
    x = self.stem(images)
    for number in range(1, len(_STAGES) + 1):
      for block in getattr(self, f"stage{number}"):
        x = block(x)
    return self.classifier(jnp.mean(self.head(x), axis=(1, 2)))
