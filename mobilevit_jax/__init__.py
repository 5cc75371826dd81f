"""MobileViT in JAX/Flax: model, recipe, data and trainer."""

from mobilevit_jax.models import create_model
from mobilevit_jax.models import VARIANTS

__all__ = ["VARIANTS", "create_model"]
__version__ = "0.1.0"
