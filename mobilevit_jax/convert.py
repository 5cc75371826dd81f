"""The old name of `python -m mobilevit_jax.weights`."""

import sys

if __name__ == "__main__":
  sys.exit("convert: this command is now python -m mobilevit_jax.weights")
