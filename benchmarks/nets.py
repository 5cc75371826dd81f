"""The nets that inference is measured on, by their short names."""

from collections.abc import Callable
import functools

from flax import nnx

from benchmarks import mobilenets
from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax.models import depthwise as dw

NETS: dict[str, Callable[..., models.Net]] = {
  **{
    models.short_name(name): functools.partial(models.abstract_model, name)
    for name in models.VARIANTS
  },
  "mobilenetv2": mobilenets.mobilenet_v2,
  "mobilenetv3": mobilenets.mobilenet_v3,
}


def abstract(name: str, depthwise: dw.Kind = "conv") -> models.Net:
  """The net without weights."""
  return nnx.eval_shape(lambda: NETS[name](depthwise=depthwise))


def random(name: str) -> models.Net:
  """The net with random weights, none of which a file could leave out."""
  return random_weights.randomize(abstract(name, "auto"))
