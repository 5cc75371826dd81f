"""Speed on this machine: `python -m mobilevit_jax.benchmark`."""
