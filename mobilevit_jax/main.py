"""`python -m mobilevit_jax.main --config=... --workdir=...`: train, evaluate.

Flags and process setup only. Grain's workers import this file again, so what
is heavy is imported inside `main`.
"""

import os
import sys

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Configuration, such as configs/imagenet.py:xs", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run: checkpoints, metrics, configuration"
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "eval"],
  "train, resuming where the workdir stopped, or evaluate its checkpoint",
)

_EXIT_STOPPED = 143  # 128 + SIGTERM: the run is saved, but not done


def main(argv: list[str]) -> int:
  """Runs the mode; returns the process's exit code."""
  if len(argv) > 1:
    print(f"error: unexpected argument {argv[1]!r}", file=sys.stderr)
    return 2
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  # Compiled programs are kept from run to run, since a step takes XLA 20 s.
  cache = os.path.join(os.path.expanduser("~"), ".cache", "mobilevit_jax")
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

  from mobilevit_jax import evaluate
  from mobilevit_jax import train
  from mobilevit_jax.config import ConfigError
  from mobilevit_jax.data.augment import ImageError

  try:
    if _MODE.value == "eval":
      step, metrics = evaluate.evaluate_workdir(_CONFIG.value, _WORKDIR.value)
      print(evaluate.summary(metrics, step))
      return 0
    results = train.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
  except (ConfigError, FileNotFoundError, ImageError, train.NonFiniteError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  return _EXIT_STOPPED if results is None else 0


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
