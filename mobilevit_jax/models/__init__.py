"""`create_model`: every architecture by name, from an explicit table."""

from collections.abc import Callable
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax.models import init
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models.mobilevit import MobileViT
from mobilevit_jax.models.mobilevit import VARIANTS

__all__ = [
  "MODELS",
  "VARIANTS",
  "MobileViT",
  "abstract_model",
  "create_model",
  "initialize",
]

MODELS: dict[str, Callable[..., nnx.Module]] = {
  name: functools.partial(mobilevit.MobileViT, variant)
  for name, variant in mobilevit.VARIANTS.items()
}


def abstract_model(name: str, **fields: Any) -> Any:
  """The model with shapes in place of weights; arguments as `create_model`."""
  if name not in MODELS:
    raise ValueError(f"model name={name!r} must be one of {', '.join(MODELS)}")
  if isinstance(fields.get("dtype"), str):
    fields["dtype"] = _compute_dtype(fields["dtype"])
  return nnx.eval_shape(lambda: MODELS[name](**fields))


def create_model(name: str, *, seed: int = 0, **fields: Any) -> Any:
  """A model with freshly drawn weights.

  Args:
    name: a key of `MODELS`, such as `"mobilevit_s"`.
    seed: of the initial weights, which depend on it and on their path alone.
    **fields: keyword arguments of the model's class: `num_classes`,
      `dropout`, `classifier_dropout`, `output_stride`, `bn_groups`,
      `depthwise`, `dtype` (see `MobileViT`).

  Returns:
    The `nnx.Module`; `model(images)` gives logits.

  Raises:
    ValueError: for an unknown name or a field out of range.
    TypeError: for a field that the model doesn't have.
  """
  return initialize(abstract_model(name, **fields), seed)


def initialize(model: Any, seed: int) -> Any:
  """The abstract `model` with weights drawn from `seed`, as numpy drew them."""
  graphdef, state = nnx.split(model)
  values = init.draw(nnx.to_pure_dict(state), seed)
  return nnx.merge(graphdef, jax.device_put(values))


def _compute_dtype(name: str) -> jnp.dtype:
  allowed = ("float32", "bfloat16", "float16", "float64")
  if name not in allowed:
    raise ValueError(f"dtype={name!r} must be one of {', '.join(allowed)}")
  return jnp.dtype(name)
