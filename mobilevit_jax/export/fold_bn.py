"""BatchNorm folded into the convolution before it."""

from typing import Any, TypeVar

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np

from mobilevit_jax.models import layers

Model = TypeVar("Model", bound=nnx.Module)


class Bias(nnx.Module):
  """What is left of a BatchNorm: a number to add to each channel."""

  def __init__(self, bias: jax.Array, *, dtype: DTypeLike = jnp.float32):
    self.bias = nnx.Param(bias)
    self.dtype = dtype

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """`x + bias`; raises ValueError for `train`, since it can't learn."""
    if train:
      raise ValueError("train=True: a net with folded BatchNorm can't train")
    return x.astype(self.dtype) + self.bias[...].astype(self.dtype)


def fold_batch_norms(model: Model) -> Model:
  """A copy of a model for inference without BatchNorm.

  Each convolution takes the scale of the norm that follows it into its
  kernel, and a bias takes the norm's place:
  `scale * (k * x - mean) / std + bias` is `(k * scale / std) * x + (bias -
  mean * scale / std)`. Logits stay equal up to rounding.

  Args:
    model: with the modules of `models.layers`; it is left as it was.

  Returns:
    The same class of model, whose `norm`s are `Bias`es.

  Raises:
    ValueError: for a BatchNorm that follows no convolution of its owner.
  """
  graphdef, state = nnx.split(model)
  # A copy: `nnx.merge` of the same arrays makes new modules around them.
  folded = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf, state))
  owners = [
    (path, module)
    for path, module in nnx.iter_modules(folded)
    if isinstance(getattr(module, "norm", None), layers.BatchNorm)
  ]
  for path, owner in owners:
    _fold(owner, "/".join(str(key) for key in path))
  return folded


def _fold(owner: Any, path: str) -> None:
  # ConvNormAct calls it `conv`, inverted residuals and detectors `depthwise`.
  convolution = getattr(owner, "conv", getattr(owner, "depthwise", None))
  if convolution is None:
    raise ValueError(f"{path}: its BatchNorm follows no convolution")
  norm = owner.norm
  # In double precision, once, so that only one rounding is left.
  tensors = norm.scale, norm.bias, norm.mean, norm.var, convolution.kernel
  scale, bias, mean, var, kernel = (
    np.asarray(tensor[...], np.float64) for tensor in tensors
  )
  factor = scale / np.sqrt(var + norm.epsilon)
  # The output channel is the last axis of every kernel, depthwise or not.
  convolution.kernel = nnx.Param(jnp.asarray(kernel * factor, jnp.float32))
  owner.norm = Bias(
    jnp.asarray(bias - mean * factor, jnp.float32), dtype=norm.dtype
  )
