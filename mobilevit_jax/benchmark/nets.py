"""The nets that inference is measured on, by their short names."""

from collections.abc import Callable
from typing import Any

from flax import nnx
import jax
import numpy as np

from mobilevit_jax import models
from mobilevit_jax.models import mobilenet_v2

NETS: dict[str, Callable[..., nnx.Module]] = {
  **{
    name.removeprefix("mobilevit_"): models.MODELS[name]
    for name in models.VARIANTS
  },
  "mobilenetv2": mobilenet_v2.MobileNetV2,
}


def abstract(name: str) -> Any:
  """The net with native depthwise convolutions, without weights."""
  return nnx.eval_shape(lambda: NETS[name](depthwise="conv"))


def random(name: str) -> Any:
  """The net with every parameter and statistic drawn at random.

  Fresh ones would do harm: what starts at 0 or 1 drops out of an export.
  """
  model = nnx.eval_shape(lambda: NETS[name](depthwise="auto"))
  graphdef, state = nnx.split(models.initialize(model, 0))
  rng = np.random.default_rng(0)

  def draw(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
    noise = rng.normal(0, 0.1, value.shape).astype(np.float32)
    if getattr(path[-1], "key", None) == "kernel":
      fan_in = np.prod(value.shape[:-1])
      return jax.numpy.asarray(noise * (10 * fan_in**-0.5))
    return jax.numpy.asarray(np.asarray(value) + noise)

  values = jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(state))
  return nnx.merge(graphdef, values)
