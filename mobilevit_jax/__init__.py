"""MobileViT in JAX/Flax: model, recipe, data and trainer."""

from mobilevit_jax.models import VARIANTS
from mobilevit_jax.models import create_model

__all__ = ["VARIANTS", "create_model"]
__version__ = "0.1.0"
