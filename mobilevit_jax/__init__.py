"""MobileViT in JAX/Flax: model, recipe, data and trainer."""

import sys
from typing import Any, TYPE_CHECKING

from mobilevit_jax.run import stop

if TYPE_CHECKING:
  from mobilevit_jax.models import create_model
  from mobilevit_jax.models import VARIANTS
  from mobilevit_jax.weights import load_weights

__all__ = ["VARIANTS", "create_model", "load_weights"]
__version__ = "0.2.0"

# While `python -m` looks for the module, sys.argv[0] is "-m": signals are set
# up before JAX is imported, which takes seconds.
if sys.argv[:1] == ["-m"]:  # `python -m`, which is still finding its module
  stop.begin()


def __getattr__(name: str) -> Any:
  """Imports the public names when they are asked for.

  Data workers import this package too, each in a process of its own, and have
  no use for JAX.
  """
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from mobilevit_jax import models
  from mobilevit_jax import weights

  return getattr(weights if name == "load_weights" else models, name)
