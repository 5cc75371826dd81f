"""DeepLabv3 (arXiv 1706.05587): a class for each pixel, by dilated taps.

The defaults are those of the paper's networks (ml-cvnets v0.1, `cvnets/models/
segmentation/heads/deeplabv3.py`), which Hugging Face's have too. ml-cvnets
since v0.2 is `aspp_width=512, aspp_dropout_kind="channel",
classifier_dropout=0, aligned=True, auxiliary=True`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np

from mobilevit_jax.models import layers
from mobilevit_jax.models.depthwise import DepthwiseKind

# Section 3.3 of the paper. They are twice as far apart at stride 8, so that
# they reach as far in the image.
# Dilations of the three 3x3 branches, by the backbone's output stride.
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
DROPOUT_KINDS = ("element", "channel")
_AUXILIARY_DROPOUT = 0.1


def resize_weights(size: int, to: int, *, aligned: bool) -> np.ndarray:
  """What each of `to` places takes from each of `size`, linearly.

  torch's bilinear resize, which does not smooth when it shrinks.

  Args:
    size: of the side that is resized, in pixels.
    to: of the result.
    aligned: whether the centres of the corners' pixels meet
      (`align_corners=True`), or the corners themselves.

  Returns:
    float64 `[to, size]`; the rows' sums are 1.
  """
  if aligned:
    # Position i of the result, in pixels of the input: aligned, the first and
    # the last centres coincide; otherwise pixels are areas, and centres lie at
    # half.
    places = np.arange(to) * ((size - 1) / max(to - 1, 1))
  else:
    places = (np.arange(to) + 0.5) * (size / to) - 0.5
  # The hat function: weight 1 at the pixel itself, 0 from the next one on.
  # Positions beyond an edge take the edge.
  distance = np.abs(np.clip(places, 0, size - 1)[:, None] - np.arange(size))
  return np.maximum(1 - distance, 0)


class ASPP(nnx.Module):
  """Atrous spatial pyramid pooling (DeepLabv3, section 3.3).

  Five branches see each pixel alone, with neighbours at three distances, and
  the mean of the whole map. BatchNorm and ReLU follow each convolution.
  """

  def __init__(
    self,
    channels: int,
    width: int,
    rates: tuple[int, int, int],
    *,
    bn_groups: int,
    depthwise: DepthwiseKind,
    dtype: DTypeLike,
  ):
    # ReLU in the head, whatever the backbone has (ml-cvnets'
    # `model.segmentation.activation.name: relu`).
    shared: dict[str, Any] = {"activation": "relu", "kind": depthwise}
    shared |= {"bn_groups": bn_groups, "dtype": dtype}
    self.branches = nnx.List(
      [
        layers.ConvNormAct(channels, width, kernel_size=1, **shared),
        *(
          layers.ConvNormAct(channels, width, dilation=rate, **shared)
          for rate in rates
        ),
      ]
    )
    self.pool = layers.ConvNormAct(channels, width, kernel_size=1, **shared)
    # Five inputs: the 1x1 branch, the three dilated ones, and the mean.
    self.project = layers.ConvNormAct(5 * width, width, kernel_size=1, **shared)

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    b, h, w, _ = x.shape
    # The mean of a map of thousands of pixels is taken in float32; half
    # precision stops adding small numbers to large sums.
    wide = layers.at_least_float32(x.dtype)
    mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=wide)
    mean = self.pool(mean.astype(x.dtype), train)
    maps = [branch(x, train) for branch in self.branches]
    # To resize one pixel is to repeat it, however the corners are aligned.
    maps.append(jnp.broadcast_to(mean, (b, h, w, mean.shape[-1])))
    return self.project(jnp.concatenate(maps, axis=-1), train)


class DeepLabV3(nnx.Module):
  """Logits of each pixel of the backbone's last map.

  Args:
    backbone: whose last stage, and fourth for the auxiliary head, it reads.
    num_classes: outputs of a pixel, the background's included.
    aspp_width: channels of the pyramid.
    rates: dilations in the pyramid; None for those of the output stride.
    aspp_dropout: rate after the pyramid.
    aspp_dropout_kind: whether it drops each `"element"` or whole `"channel"`s.
    classifier_dropout: rate of dropping channels before the classifier.
    auxiliary: whether training also classifies the pixels of stage 4.
    aligned: how `enlarge` resizes; see `resize_weights`.
    bn_groups: see `layers.BatchNorm`.
    depthwise: kind of the 1x1 convolutions; see `models.depthwise`.
    dtype: compute type; logits are float32 or wider.
  """

  BACKBONE: ClassVar[dict[str, Any]] = {"output_stride": 16}
  FROZEN = ()

  def __init__(
    self,
    backbone: Any,
    *,
    num_classes: int = 21,
    aspp_width: int = 256,
    rates: tuple[int, int, int] | None = None,
    aspp_dropout: float = 0.1,
    aspp_dropout_kind: Literal["element", "channel"] = "element",
    classifier_dropout: float = 0.1,
    auxiliary: bool = False,
    aligned: bool = False,
    bn_groups: int = 1,
    depthwise: DepthwiseKind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    layers.check_rates(
      aspp_dropout=aspp_dropout, classifier_dropout=classifier_dropout
    )
    layers.check_counts(num_classes=num_classes, aspp_width=aspp_width)
    stride = backbone.output_stride
    if stride not in RATES:
      raise ValueError(f"output_stride={stride} must be 8 or 16 for deeplabv3")
    if aspp_dropout_kind not in DROPOUT_KINDS:
      raise ValueError(
        f"aspp_dropout_kind={aspp_dropout_kind!r} must be one of "
        f"{', '.join(DROPOUT_KINDS)}"
      )
    if rates is not None and (len(rates) != 3 or min(rates) < 1):
      raise ValueError(f"rates={rates} must be three dilations from 1 up")
    wide = layers.at_least_float32(dtype)
    shared = {"bn_groups": bn_groups, "depthwise": depthwise, "dtype": dtype}
    self.rates, self.aspp_width = rates or RATES[stride], aspp_width
    self.aspp = ASPP(backbone.channels[-1], aspp_width, self.rates, **shared)
    whole = (1, 2)  # the pixels of a channel share one draw
    self.aspp_dropout = nnx.Dropout(
      aspp_dropout,
      broadcast_dims=whole if aspp_dropout_kind == "channel" else (),
    )
    self.dropout = nnx.Dropout(classifier_dropout, broadcast_dims=whole)
    # A bias, since no BatchNorm follows. float32 logits, as in the classifier.
    self.classifier = layers.Conv(
      aspp_width, num_classes, 1, use_bias=True, kind=depthwise, dtype=wide
    )
    self.LAYERS, self.CLASSIFIERS = ("aspp", "classifier"), ("classifier",)
    if auxiliary:
      # Stage 4 of MobileViT: a quarter of its channels, but at least 128, as
      # ml-cvnets has it since v0.2 (v0.1: 256).
      channels = backbone.channels[-2]
      width = max(channels // 4, 128)
      self.auxiliary = layers.ConvNormAct(
        channels, width, activation="relu", bn_groups=bn_groups, dtype=dtype
      )
      self.auxiliary_dropout = nnx.Dropout(
        _AUXILIARY_DROPOUT, broadcast_dims=whole
      )
      self.auxiliary_classifier = layers.Conv(
        width, num_classes, 1, use_bias=True, kind=depthwise, dtype=wide
      )
      # The classifier stays the last one: it tells the number of classes.
      self.CLASSIFIERS = ("auxiliary_classifier", "classifier")
      self.LAYERS = ("auxiliary", "auxiliary_classifier", *self.LAYERS)
    self.num_classes, self.aligned = num_classes, aligned
    self.output_stride, self.bn_groups = stride, bn_groups

  @staticmethod
  def count_classes(biases: Mapping[str, int]) -> int:
    """From the lengths of the biases to the number of classes."""
    return biases["classifier/bias"]

  @staticmethod
  def fields_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Fields that the shapes of weights tell, by paths within the head.

    The stride and the rates are in no weights: a pyramid of 512 channels was
    published at stride 8, with the other options of ml-cvnets since v0.2.
    """
    width = shapes.get("aspp/project/conv/kernel", (256,))[-1]
    fields: dict[str, Any] = {"aspp_width": width}
    fields["auxiliary"] = "auxiliary/conv/kernel" in shapes
    # What ml-cvnets published with a pyramid of 512: stride 8, and corners that
    # meet in the final resize.
    if width == 512:
      fields |= {"output_stride": 8, "aligned": True}
    return fields

  @property
  def OUTPUTS(self) -> dict[str, Any]:  # noqa: N802
    """`logits` and `mask` at the size of images that the stride divides."""
    return {"logits": self._at_input, "mask": self._mask}

  def __call__(
    self,
    features: Mapping[str, jax.Array],
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Any:
    """Logits `[b, h / stride, w / stride, num_classes]`, float32 or wider.

    In training with the auxiliary head a dict of `logits` and `auxiliary`,
    which has stage 4's size.

    Raises:
      ValueError: for training on one image: the pyramid normalises the mean of
        a map, of which one image gives one value.
    """
    x = features["stage5"]
    # The pooling branch gives one value a channel and image, and BatchNorm over
    # a single value is 0 whatever the value is.
    if train and len(x) // self.bn_groups < 2:
      raise ValueError(
        f"a batch of {len(x)} images in {self.bn_groups} BatchNorm groups is "
        "too small to train deeplabv3; each group needs at least 2 images"
      )
    x = self.aspp(x, train)
    x = self.aspp_dropout(x, deterministic=not train, rngs=rngs)
    x = self.dropout(x, deterministic=not train, rngs=rngs)
    logits = self.classifier(x)
    # The auxiliary branch belongs to training alone: exported files and
    # published parameter counts leave it out.
    if not (train and "auxiliary" in self.LAYERS):
      return logits
    x = self.auxiliary(features["stage4"], train)
    x = self.auxiliary_dropout(x, deterministic=False, rngs=rngs)
    return {"logits": logits, "auxiliary": self.auxiliary_classifier(x)}

  def enlarge(self, logits: jax.Array, height: int, width: int) -> jax.Array:
    """Logits `[b, h, w, k]` of as many pixels as asked for, bilinear."""
    _, h, w, _ = logits.shape
    rows = resize_weights(h, height, aligned=self.aligned)
    columns = resize_weights(w, width, aligned=self.aligned)
    # Two small matrix products, one a side: exact to rounding for any size, and
    # the same on every platform, where `jax.image.resize` has no form with
    # aligned corners.
    return jnp.einsum(
      "Hh,Ww,bhwk->bHWk",
      jnp.asarray(rows, logits.dtype),
      jnp.asarray(columns, logits.dtype),
      logits,
      precision="highest",
    )

  def _at_input(self, logits: jax.Array) -> jax.Array:
    _, h, w, _ = logits.shape
    return self.enlarge(logits, h * self.output_stride, w * self.output_stride)

  # uint8 holds 256 classes, of which 255 is kept for ignored pixels.
  def _mask(self, logits: jax.Array) -> jax.Array:
    return jnp.argmax(self._at_input(logits), axis=-1).astype(jnp.uint8)
