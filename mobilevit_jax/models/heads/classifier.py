"""The classifier: one class for the whole image.

Source: ml-cvnets v0.1 `cvnets/models/classification/mobilevit.py`, and v0.2
`mobilevit_v2.py` there.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mobilevit_jax.models import layers
from mobilevit_jax.models.depthwise import DepthwiseKind


class Classifier(nnx.Module):
  """A 1x1 convolution, if the backbone wants one; the mean; a linear layer.

  Args:
    backbone: whose last stage it reads; its `head_channels` are the
      convolution's, and None leaves that out.
    num_classes: outputs.
    classifier_dropout: rate before the linear layer; None takes the backbone's.
    frozen: train the linear layer alone; see `Net`.
    bn_groups: see `layers.BatchNorm`.
    depthwise: kind of the 1x1 convolution; see `models.depthwise`.
    dtype: compute type; logits are float32 or wider.
  """

  LAYERS = ("expand", "classifier")
  CLASSIFIERS = ("classifier",)
  FROZEN = ("expand",)  # trained with the backbone, and kept with it
  OUTPUTS: ClassVar[dict[str, Any]] = {
    "logits": lambda logits: logits,
    "probabilities": jax.nn.softmax,
  }

  def __init__(
    self,
    backbone: Any,
    *,
    num_classes: int = 1000,
    classifier_dropout: float | None = None,
    frozen: bool = False,
    bn_groups: int = 1,
    depthwise: DepthwiseKind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    rate = classifier_dropout
    if rate is None:
      rate = float(backbone.classifier_dropout)
    layers.check_rates(classifier_dropout=rate)
    layers.check_counts(num_classes=num_classes)
    # `channels[-1]` is stage 5; v1 widens it fourfold by a 1x1 convolution
    # before the mean (paper, Table 4), v2 takes it as it is.
    last, width = backbone.channels[-1], backbone.head_channels
    if width is None:
      self.LAYERS, self.FROZEN = self.CLASSIFIERS, ()
    else:
      norm_act = {"kind": depthwise, "bn_groups": bn_groups, "dtype": dtype}
      self.expand = layers.ConvNormAct(last, width, kernel_size=1, **norm_act)
    self.dropout = nnx.Dropout(rate)
    self.classifier = layers.Linear(
      # Logits stay in float32 when the net computes in bfloat16: the loss
      # subtracts numbers that differ by less than bfloat16 resolves.
      width or last,
      num_classes,
      dtype=layers.at_least_float32(dtype),
    )
    self.num_classes, self.frozen = num_classes, frozen

  @staticmethod
  def count_classes(sizes: Mapping[str, int]) -> int:
    """Classes, from the lengths of the head's biases, by path."""
    return sizes["classifier/bias"]

  def __call__(
    self,
    features: Mapping[str, jax.Array],
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> jax.Array:
    """Logits `[b, num_classes]`, float32 or wider."""
    x = features["stage5"]
    # A frozen net's convolution runs as in evaluation: its BatchNorm keeps the
    # statistics that it was trained with.
    for name in self.FROZEN:
      x = getattr(self, name)(x, train and not self.frozen)
    # The mean over all pixels of half-precision maps would lose digits.
    x = jnp.mean(x, axis=(1, 2), dtype=layers.at_least_float32(x.dtype))
    if self.frozen:
      x = jax.lax.stop_gradient(x)
    x = self.dropout(x, deterministic=not train, rngs=rngs)
    return self.classifier(x)
