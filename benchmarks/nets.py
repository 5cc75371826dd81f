"""The nets that inference is measured on, by their short names."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from benchmarks import mobilenet_v2
from benchmarks import mobilenet_v3
from benchmarks import random_weights
from mobilevit_jax import models

NETS: dict[str, Callable[..., nnx.Module]] = {
  **{
    name.removeprefix("mobilevit_"): models.MODELS[name]
    for name in models.VARIANTS
  },
  "mobilenetv2": mobilenet_v2.MobileNetV2,
  "mobilenetv3": mobilenet_v3.MobileNetV3,
}


def abstract(name: str) -> Any:
  """The net with native depthwise convolutions, without weights."""
  return nnx.eval_shape(lambda: NETS[name](depthwise="conv"))


def random(name: str) -> Any:
  """The net with random weights, none of which a file could leave out."""
  model = nnx.eval_shape(lambda: NETS[name](depthwise="auto"))
  return random_weights.randomize(models.initialize(model, 0))
