"""The old name of `python -m mobilevit_jax.data`."""

import sys

if __name__ == "__main__":
  sys.exit("prepare_data: this command is now python -m mobilevit_jax.data")
