"""The classifier of MobileViT: one class for the whole image.

Source: ml-cvnets v0.1 `cvnets/models/classification/mobilevit.py`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mobilevit_jax.models import depthwise as dw
from mobilevit_jax.models import layers


class Classifier(nnx.Module):
  """A 1x1 convolution to four times the width, the mean, a linear layer.

  Args:
    backbone: whose last stage it reads.
    num_classes: outputs.
    classifier_dropout: rate before the linear layer.
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
    classifier_dropout: float = 0.1,
    frozen: bool = False,
    bn_groups: int = 1,
    depthwise: dw.Kind = "auto",
    dtype: DTypeLike = jnp.float32,
  ):
    layers.check_rates(classifier_dropout=classifier_dropout)
    layers.check_counts(num_classes=num_classes)
    last = backbone.channels[-1]
    norm_act = {"kind": depthwise, "bn_groups": bn_groups, "dtype": dtype}
    self.expand = layers.ConvNormAct(last, 4 * last, kernel_size=1, **norm_act)
    self.dropout = nnx.Dropout(classifier_dropout)
    self.classifier = layers.Linear(
      4 * last, num_classes, dtype=layers.at_least_float32(dtype)
    )
    self.num_classes, self.frozen = num_classes, frozen

  def __call__(
    self,
    features: Mapping[str, jax.Array],
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> jax.Array:
    """Logits `[b, num_classes]`, float32 or wider."""
    x = self.expand(features["stage5"], train and not self.frozen)
    # The mean over all pixels of half-precision maps would lose digits.
    x = jnp.mean(x, axis=(1, 2), dtype=layers.at_least_float32(x.dtype))
    if self.frozen:
      x = jax.lax.stop_gradient(x)
    x = self.dropout(x, deterministic=not train, rngs=rngs)
    return self.classifier(x)
