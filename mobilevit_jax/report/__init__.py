"""An HTML report of a run: `python -m mobilevit_jax.report WORKDIR`."""

from mobilevit_jax.report.document import after_training
from mobilevit_jax.report.document import write

__all__ = ["after_training", "write"]
