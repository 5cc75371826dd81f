"""An HTML report of a run: `python -m mobilevit_jax.report WORKDIR`."""
