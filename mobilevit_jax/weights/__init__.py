"""Published weights in and out: `load_weights`, `save_weights`."""

from mobilevit_jax.weights.io import load_weights
from mobilevit_jax.weights.io import save_weights
from mobilevit_jax.weights.io import start

__all__ = ["load_weights", "save_weights", "start"]
