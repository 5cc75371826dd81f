"""SSDLite: boxes and classes from six maps, as ml-cvnets trained MobileViT.

Sources: MobileViT (arXiv 2110.02178, 4.2.1 and appendix D); ml-cvnets v0.1
`cvnets/models/detection/ssd.py` and `cvnets/anchor_generator/`. Letters: `b`
images, `n` anchors, `k` classes of objects; the background is one more.
"""

from collections.abc import Mapping, Sequence
import functools
import math
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np

from mobilevit_jax.models import init
from mobilevit_jax.models import layers
from mobilevit_jax.models.depthwise import DepthwiseConv
from mobilevit_jax.models.depthwise import DepthwiseKind

# Levels: stage4, stage5, three extra maps of half the side each, one pixel.
#   stride at 320 px            16    32    64   128   256    all
EXTRA = (256, 128, 128)  #                 width of the extra maps
GLOBAL = 64  #                                                width of the pixel
PROJECTED = (512, 256)  #    width that stage4 and stage5 are brought to
PER_CELL = (6, 6, 6, 6, 6, 4)  # anchors of a cell
RATIOS = ((2, 3),) * 5 + ((2,),)
SCALES = (0.1, 1.05)  # of the first level, and of one after the last
# What offsets are divided by: centres, then logarithms of the sides.
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


@functools.cache
def _anchors(maps: tuple[tuple[int, int], ...]) -> np.ndarray:
  # Seven equally spaced scales; a cell's second square lies between two.
  scales = np.linspace(*SCALES, len(maps) + 1)
  levels = []
  for (height, width), ratios, small, next_small in zip(
    maps, RATIOS, scales, scales[1:], strict=False
  ):
    # Squares of the level's scale s, and of sqrt(s s') with the next level's
    # (SSD, section 2.2).
    sides = [(small, small), (math.sqrt(small * next_small),) * 2]
    for ratio in ratios:
      # Rectangles of the same area: s sqrt(r) by s / sqrt(r), lying and
      # standing.
      long, short = small * math.sqrt(ratio), small / math.sqrt(ratio)
      sides += [(long, short), (short, long)]
    y, x = np.mgrid[:height, :width]
    # Centres of the cells, as parts of the image.
    centers = np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=-1)
    level = np.zeros((height, width, len(sides), 4))
    level[..., :2], level[..., 2:] = centers[:, :, None], sides
    levels.append(level.reshape(-1, 4))
  # ml-cvnets clips centre and sides, not corners.
  # Sides above 1 are cut; corners may lie outside of the image.
  anchors = np.concatenate(levels).clip(0, 1).astype(np.float32)
  anchors.flags.writeable = False  # one array for all who ask
  return anchors


def anchors(maps: Sequence[tuple[int, int]]) -> np.ndarray:
  """The boxes that predictions are offsets from.

  Args:
    maps: height and width of the six maps, from the finest on.

  Returns:
    float32 `[n, 4]` of centre x, centre y, width and height, as parts of the
    image; by level, cell (row by row) and shape.
  """
  return _anchors(tuple(maps))


def map_sizes(height: int, width: int) -> list[tuple[int, int]]:
  """The six maps' sizes for an image of these sides, in pixels."""
  # Each map has half the side of the one before, rounded up.
  strides = (16, 32, 64, 128, 256)
  sizes = [(math.ceil(height / s), math.ceil(width / s)) for s in strides]
  return [*sizes, (1, 1)]


def decode(offsets: Any, boxes: Any) -> jax.Array:
  """Corners that offsets from anchors mean.

  Args:
    offsets: `[..., n, 4]`, in float32 or wider.
    boxes: the anchors, `[n, 4]`, as `anchors` gives them.

  Returns:
    `[..., n, 4]` of x0, y0, x1, y1, not cut at the image's edges.
  """
  # SSD, section 2.2, inverted: c = t 0.1 a_wh + a_c, and wh = a_wh exp(0.2 t).
  centers = offsets[..., :2] * CENTER_VARIANCE * boxes[:, 2:] + boxes[:, :2]
  half = jnp.exp(offsets[..., 2:] * SIZE_VARIANCE) * boxes[:, 2:] / 2
  return jnp.concatenate([centers - half, centers + half], axis=-1)


def decoded(out: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """What each anchor says, of what the head gives.

  Returns:
    `boxes` `[b, n, 4]`, see `decode`; `scores` `[b, n, k]` of objects alone:
    softmax over all classes, and the background dropped.
  """
  return {
    "boxes": decode(out["offsets"], out["anchors"]),
    "scores": jax.nn.softmax(out["logits"])[..., 1:],
  }


class Separable(nnx.Module):
  """Depthwise 3 x 3 and BatchNorm, then 1 x 1, BatchNorm and ReLU."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    *,
    stride: int,
    kind: DepthwiseKind,
    bn_groups: int,
    dtype: DTypeLike,
  ):
    # No activation between the depthwise convolution and the 1x1: ml-cvnets'
    # "separable" layers have a BatchNorm alone there.
    self.depthwise = DepthwiseConv(
      in_channels, stride=stride, kind=kind, dtype=dtype
    )
    self.norm = layers.BatchNorm(in_channels, groups=bn_groups, dtype=dtype)
    self.pointwise = layers.ConvNormAct(
      in_channels,
      out_channels,
      kernel_size=1,
      activation="relu",
      kind=kind,
      bn_groups=bn_groups,
      dtype=dtype,
    )

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    return self.pointwise(self.norm(self.depthwise(x), train), train)


class Filter(nnx.Module):
  """What comes before a level's 1 x 1 prediction: a projection, a depthwise."""

  def __init__(
    self,
    in_channels: int,
    channels: int,
    *,
    kind: DepthwiseKind,
    bn_groups: int,
    dtype: DTypeLike,
  ):
    # Only levels 16 and 32 are projected: they come with the backbone's widths,
    # the extra maps with the head's.
    if in_channels != channels:
      self.project = layers.ConvNormAct(
        in_channels,
        channels,
        kernel_size=1,
        activation="relu",
        kind=kind,
        bn_groups=bn_groups,
        dtype=dtype,
      )
    self.projected = in_channels != channels
    self.depthwise = DepthwiseConv(channels, kind=kind, dtype=dtype)
    self.norm = layers.BatchNorm(channels, groups=bn_groups, dtype=dtype)

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    if self.projected:
      x = self.project(x, train)
    return self.norm(self.depthwise(x), train)


class SSDLite(nnx.Module):
  """Six maps, and of each cell of each the offsets and classes of its anchors.

  Args:
    backbone: whose last two stages it reads.
    num_classes: of objects; the background is added here.
    bn_groups: see `layers.BatchNorm`.
    depthwise: kind of depthwise and 1 x 1 convolutions; see `models.depthwise`.
    dtype: compute type; the outputs are float32 or wider.
  """

  LAYERS = ("extra", "pool", "filters", "predict")
  CLASSIFIERS = ("predict",)
  FROZEN = ()
  OUTPUTS: ClassVar[dict[str, Any]] = {"boxes": decoded}

  def __init__(
    self,
    backbone: Any,
    *,
    num_classes: int = 80,
    bn_groups: int = 1,
    depthwise: DepthwiseKind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    layers.check_counts(num_classes=num_classes)
    conv: dict[str, Any] = {
      "kind": depthwise,
      "bn_groups": bn_groups,
      "dtype": dtype,
    }
    c4, c5 = backbone.channels[-2:]
    # Each extra map is made of the one before, the first of stage 5 as the
    # backbone gives it, before its projection.
    widths = (c5, *EXTRA)
    self.extra = nnx.List(
      Separable(*pair, stride=2, **conv)
      for pair in zip(widths, EXTRA, strict=False)
    )
    # No bias and no norm: the mean over the map leaves one value a channel and
    # image.
    self.pool = layers.Conv(EXTRA[-1], GLOBAL, 1, kind=depthwise, dtype=dtype)
    self.filters = nnx.List(
      Filter(*pair, **conv)
      for pair in zip((c4, c5, *EXTRA), (*PROJECTED, *EXTRA), strict=True)
    )
    # One convolution answers for boxes and classes together; see `__call__` for
    # the order of its channels.
    self.predict = nnx.List(
      layers.Conv(
        width,
        count * (4 + num_classes + 1),
        1,
        use_bias=True,
        kind=depthwise,
        dtype=layers.at_least_float32(dtype),
      )
      for width, count in zip(
        (*PROJECTED, *EXTRA, GLOBAL), PER_CELL, strict=True
      )
    )
    self.num_classes = num_classes

  @staticmethod
  def count_classes(sizes: Mapping[str, int]) -> int:
    """Objects' classes, from the lengths of the head's biases, by path."""
    # The bias has an entry for each of 6 anchors' 4 offsets, background and
    # classes.
    return sizes["predict/0/bias"] // PER_CELL[0] - 5

  @staticmethod
  def init(shapes: dict[Any, Any], seed: int) -> dict[Any, Any]:
    """First weights: Xavier's uniform ones, as ml-cvnets' detector has them."""
    return init.draw(shapes, seed, rule=init.xavier, prefix="head/")

  def maps(
    self, features: Mapping[str, jax.Array], train: bool = False
  ) -> list[jax.Array]:
    """The six maps, `[b, h, w, c]` each."""
    x = features["stage5"]
    maps = [features["stage4"], x]
    for layer in self.extra:
      x = layer(x, train)
      maps.append(x)
    wide = layers.at_least_float32(x.dtype)
    pooled = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=wide)
    return [*maps, jax.nn.relu(self.pool(pooled))]

  def __call__(
    self,
    features: Mapping[str, jax.Array],
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> dict[str, jax.Array]:
    """What the net says of each anchor, in float32 or wider.

    Returns:
      `offsets` `[b, n, 4]`; `logits` `[b, n, 1 + k]`, the background's first;
      `anchors` `[n, 4]` (see `anchors`).
    """
    del rngs
    width, parts = 4 + self.num_classes + 1, []
    maps = self.maps(features, train)
    # The last level, one pixel, has no filter: its 1x1 convolution predicts at
    # once.
    for level, (x, predict) in enumerate(zip(maps, self.predict, strict=True)):
      if level < len(self.filters):
        x = self.filters[level](x, train)
      # Channels are anchor by anchor, each its offsets and then its classes.
      parts.append(predict(x).reshape(x.shape[0], -1, width))
    y = jnp.concatenate(parts, axis=1)
    sizes = [(x.shape[1], x.shape[2]) for x in maps]
    return {
      "offsets": y[..., :4],
      "logits": y[..., 4:],
      "anchors": jnp.asarray(anchors(sizes)),
    }
