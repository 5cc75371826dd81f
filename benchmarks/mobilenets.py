"""The CNNs that MobileViT is measured against: MobileNetV2 and V3-Large.

Yardsticks (arXiv 1801.04381 and 1905.02244) of width 1.0 with MobileViT's names
for their parts, and what they are in exported files. They have no recipe and no
weights of ours, so they aren't among `create_model`'s nets.
"""

from collections.abc import Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax.export import graph
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models import layers
from mobilevit_jax.models.depthwise import DepthwiseConv
from mobilevit_jax.models.depthwise import DepthwiseKind
from mobilevit_jax.models.heads import classifier
from mobilevit_jax.models.net import Net

# A block: kernel, expanded width, output channels, squeeze-excite, activation,
# stride.
_Row = tuple[int, int, int, bool, layers.Activation, int]

# V2's Table 2: (expansion t, channels c, repeats n, first stride s); 3,504,872
# parameters. Stages begin where a stride is 2.
_V2 = (
  *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
  *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
# V3's Table 1; 5,483,032 parameters, as torchvision's.
_V3: tuple[_Row, ...] = (
  (3, 16, 16, False, "relu", 1),
  (3, 64, 24, False, "relu", 2),
  (3, 72, 24, False, "relu", 1),
  (5, 72, 40, True, "relu", 2),
  (5, 120, 40, True, "relu", 1),
  (5, 120, 40, True, "relu", 1),
  (3, 240, 80, False, "hard_swish", 2),
  (3, 200, 80, False, "hard_swish", 1),
  (3, 184, 80, False, "hard_swish", 1),
  (3, 184, 80, False, "hard_swish", 1),
  (3, 480, 112, True, "hard_swish", 1),
  (3, 672, 112, True, "hard_swish", 1),
  (5, 672, 160, True, "hard_swish", 2),
  (5, 960, 160, True, "hard_swish", 1),
  (5, 960, 160, True, "hard_swish", 1),
)


class SqueezeExcite(nnx.Module):
  """Each channel times a gate in [0, 1] that the channels' means decide."""

  def __init__(self, channels: int):
    # V3's reduction is 4, and channels are rounded as MobileNet rounds them.
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

  def __init__(self, in_channels: int, row: _Row, depthwise: DepthwiseKind):
    kernel, hidden, out_channels, squeeze, activation, stride = row
    conv: dict[str, Any] = {"kernel_size": 1, "kind": depthwise}
    self.expansion = hidden / in_channels
    if self.expansion != 1:
      self.expand = layers.ConvNormAct(
        in_channels, hidden, activation=activation, **conv
      )
    self.depthwise = DepthwiseConv(
      hidden, kernel_size=kernel, stride=stride, kind=depthwise
    )
    self.norm = layers.BatchNorm(hidden)
    self.gate = SqueezeExcite(hidden) if squeeze else None
    self.project = layers.ConvNormAct(
      hidden, out_channels, activation=None, **conv
    )
    self.activation: layers.Activation = activation
    self.residual = stride == 1 and in_channels == out_channels

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[b, h, w, c]` to its output channels, by its stride smaller."""
    # Squeeze-excite stands between the activation and the projection, as in V3.
    y = self.expand(x) if self.expansion != 1 else x
    y = layers.ACTIVATIONS[self.activation](self.norm(self.depthwise(y)))
    y = self.project(self.gate(y) if self.gate else y)
    return x + y if self.residual else y


class Backbone(nnx.Module):
  """Stem and five stages of `Block`s."""

  LAYERS = ("stem", "stage1", "stage2", "stage3", "stage4", "stage5")

  def __init__(
    self,
    width: int,
    rows: Sequence[_Row],
    activation: layers.Activation,
    depthwise: DepthwiseKind,
  ):
    self.stem = layers.ConvNormAct(3, width, stride=2, activation=activation)
    stages: list[list[Block]] = [[]]
    for row in rows:
      # A stage ends where the map gets smaller.
      if row[-1] == 2:
        stages.append([])
      stages[-1].append(Block(width, row, depthwise))
      width = row[2]
    for name, blocks in zip(self.LAYERS[1:], stages, strict=True):
      setattr(self, name, nnx.List(blocks))

  def features(
    self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> dict[str, jax.Array]:
    """Outputs of the stages; it is for inference alone."""
    del train, rngs
    x, outputs = self.stem(images), {}
    for name in self.LAYERS[1:]:
      for block in getattr(self, name):
        x = block(x)
      outputs[name] = x
    return outputs


class HiddenLinear(nnx.Module):
  """V3's classifier: a dense layer, hard swish, another dense layer."""

  def __init__(self, channels: int, hidden: int, num_classes: int):
    self.hidden = layers.Linear(channels, hidden)
    self.classifier = layers.Linear(hidden, num_classes)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits `[b, num_classes]` of the means `[b, channels]`."""
    return self.classifier(jax.nn.hard_swish(self.hidden(x)))


class Head(classifier.Classifier):
  """Our classifier's parts in the MobileNets' sizes, for 1000 classes."""

  def __init__(
    self,
    channels: int,
    expanded: int,
    hidden: int | None,
    activation: layers.Activation,
    depthwise: DepthwiseKind,
  ):
    self.expand = layers.ConvNormAct(
      channels, expanded, kernel_size=1, activation=activation, kind=depthwise
    )
    self.dropout, self.num_classes, self.frozen = nnx.Dropout(0.0), 1000, False
    if hidden:
      self.classifier = HiddenLinear(expanded, hidden, self.num_classes)
    else:
      self.classifier = layers.Linear(expanded, self.num_classes)


def mobilenet_v2(*, depthwise: DepthwiseKind = "auto") -> Net:
  """MobileNetV2 for 1000 classes."""
  width, rows = 32, []
  # Only a row's first block has its stride.
  for expansion, channels, repeats, first in _V2:
    for stride in (first, *[1] * (repeats - 1)):
      rows.append((3, expansion * width, channels, False, "relu6", stride))
      width = channels
  backbone = Backbone(32, rows, "relu6", depthwise)
  return Net(backbone, Head(width, 1280, None, "relu6", depthwise))


def mobilenet_v3(*, depthwise: DepthwiseKind = "auto") -> Net:
  """MobileNetV3-Large for 1000 classes."""
  backbone = Backbone(16, _V3, "hard_swish", depthwise)
  return Net(backbone, Head(160, 960, 1280, "hard_swish", depthwise))


@graph.write.register
def _block(module: Block, ops: Ops, x: Tensor, name: str) -> Tensor:
  y = graph.expand(module, ops, x, name)
  if module.gate:
    y = graph.write(module.gate, ops, y, f"{name}/gate")
  return graph.project(module, ops, x, y, name)


@graph.write.register
def _squeeze_excite(
  module: SqueezeExcite, ops: Ops, x: Tensor, name: str
) -> Tensor:
  y = ops.pool(x, f"{name}/pool")
  y = graph.write(module.reduce, ops, y, f"{name}/reduce")
  y = ops.relu(y, f"{name}/relu")
  y = graph.write(module.expand, ops, y, f"{name}/expand")
  return ops.scale(x, ops.hard_sigmoid(y, f"{name}/sigmoid"), name)


@graph.write.register
def _hidden_linear(
  module: HiddenLinear, ops: Ops, x: Tensor, name: str
) -> Tensor:
  x = graph.write(module.hidden, ops, x, "hidden")
  x = ops.hard_swish(x, "hidden/hard_swish")
  return graph.write(module.classifier, ops, x, name)
