"""MobileNetV3-Large (arXiv 1905.02244), a second CNN to measure against.

As `mobilenet_v2`: without recipe or weights of ours.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax.models import depthwise as dw
from mobilevit_jax.models import layers

# The paper's Table 1, a row a block, a tuple a stage: (kernel, expanded, out,
# squeeze-excite, activation, stride). 5,483,032 parameters, as torchvision's.
_Row = tuple[int, int, int, bool, layers.Activation, int]
_STAGES: tuple[tuple[_Row, ...], ...] = (
  ((3, 16, 16, False, "relu", 1),),
  ((3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1)),
  (
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
  ),
  (
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
  ),
  (
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
  ),
)
_STEM, _HEAD, _HIDDEN = 16, 960, 1280


class SqueezeExcite(nnx.Module):
  """Each channel times a gate in [0, 1] that the channels' means decide."""

  def __init__(self, channels: int):
    # A quarter, rounded to eights, but not down by more than a tenth.
    hidden = max(8, (channels // 4 + 4) // 8 * 8)
    if hidden < 0.9 * (channels // 4):
      hidden += 8
    self.reduce = layers.Linear(channels, hidden)
    self.expand = layers.Linear(hidden, channels)

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[b, h, w, c]`, of the same shape."""
    gate = self.expand(jax.nn.relu(self.reduce(jnp.mean(x, axis=(1, 2)))))
    return x * jax.nn.hard_sigmoid(gate)[:, None, None]


class Block(nnx.Module):
  """An inverted residual with any kernel and, if asked for, a gate."""

  def __init__(
    self,
    in_channels: int,
    kernel_size: int,
    hidden: int,
    out_channels: int,
    squeeze: bool,
    activation: layers.Activation,
    stride: int,
    depthwise: dw.Kind,
  ):
    self.expansion = 1 if hidden == in_channels else hidden / in_channels
    if self.expansion != 1:
      self.expand = layers.ConvNormAct(
        in_channels,
        hidden,
        kernel_size=1,
        activation=activation,
        kind=depthwise,
      )
    self.depthwise = dw.DepthwiseConv(
      hidden, kernel_size=kernel_size, stride=stride, kind=depthwise
    )
    self.norm = layers.BatchNorm(hidden)
    if squeeze:
      self.gate = SqueezeExcite(hidden)
    self.squeeze = squeeze
    self.project = layers.ConvNormAct(
      hidden, out_channels, kernel_size=1, activation=None, kind=depthwise
    )
    self.activation: layers.Activation = activation
    self.residual = stride == 1 and in_channels == out_channels

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[b, h, w, c]` to its output channels, by its stride smaller."""
    y = self.expand(x) if self.expansion != 1 else x
    y = layers.ACTIVATIONS[self.activation](self.norm(self.depthwise(y)))
    y = self.project(self.gate(y) if self.squeeze else y)
    return x + y if self.residual else y


class MobileNetV3(nnx.Module):
  """The classifier of width 1.0, with MobileViT's names for its parts."""

  def __init__(self, *, num_classes: int = 1000, depthwise: dw.Kind = "auto"):
    self.stem = layers.ConvNormAct(3, _STEM, stride=2, activation="hard_swish")
    width = _STEM
    for number, rows in enumerate(_STAGES, start=1):
      blocks = []
      for kernel, hidden, channels, squeeze, activation, stride in rows:
        blocks.append(
          Block(
            width,
            kernel,
            hidden,
            channels,
            squeeze,
            activation,
            stride,
            depthwise,
          )
        )
        width = channels
      setattr(self, f"stage{number}", nnx.List(blocks))
    self.head = layers.ConvNormAct(
      width, _HEAD, kernel_size=1, activation="hard_swish", kind=depthwise
    )
    self.hidden = layers.Linear(_HEAD, _HIDDEN)
    self.classifier = layers.Linear(_HIDDEN, num_classes)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Logits `[b, num_classes]` of RGB images `[b, h, w, 3]` in [0, 1]."""
    x = self.stem(images)
    for number in range(1, len(_STAGES) + 1):
      for block in getattr(self, f"stage{number}"):
        x = block(x)
    x = jnp.mean(self.head(x), axis=(1, 2))
    return self.classifier(jax.nn.hard_swish(self.hidden(x)))
