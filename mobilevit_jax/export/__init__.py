"""Files for phones, browsers and servers; `fold_batch_norms` for anyone.

The command is `python -m mobilevit_jax.export`.
"""

from mobilevit_jax.export.fold_bn import fold_batch_norms

__all__ = ["fold_batch_norms"]
