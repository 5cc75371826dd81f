"""Trains a net as a configuration says, or evaluates what was trained.

    mobilevit train --config=digits --workdir=runs/digits
    mobilevit eval --config=digits --workdir=runs/digits

`--config` is a name that `mobilevit configs` lists, or a file, such as
configs/imagenet.py:xs; `--config.FIELD=VALUE` sets a field of it.
"""

from collections.abc import Sequence
import os
import pathlib
import sys

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from mobilevit_jax.config import flags_parser
from mobilevit_jax.config import UserError
from mobilevit_jax.run import stop

_CONFIG = config_flags.DEFINE_config_file("config", None, "Its name, or file")
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run's checkpoints and metrics", required=True
)
_MODE = flags.DEFINE_enum(
  "mode", "train", ["train", "eval"], "train, or only evaluate the workdir"
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0, where JAX does not find it"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of the whole run")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This one, from 0")


@stop.in_one_line("main", "what the run saved is whole; start again to go on")
def _run(unused_argv: list[str]) -> int:
  """Runs the mode; returns the process's exit code."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  cache = pathlib.Path("~/.cache/mobilevit_jax").expanduser()
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))

  # Here, and not above: Grain's workers import this file again.
  from mobilevit_jax import evaluate
  from mobilevit_jax import report
  from mobilevit_jax import train
  from mobilevit_jax.run import distributed

  try:
    distributed.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    if _MODE.value == "eval":
      print(evaluate.evaluate_workdir(_CONFIG.value, _WORKDIR.value))
      return 0
    train.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    if _CONFIG.value.report:
      report.after_training(_WORKDIR.value)
  except (UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return distributed.leave(1)
  return 0


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with the process's arguments, or these in their place."""
  if argv is not None:
    sys.argv[1:] = argv  # ml_collections looks there for the fields to set
  flags.mark_flag_as_required("config")
  app.run(_run, flags_parser=flags_parser(flags.FLAGS, _CONFIG, __doc__))


if __name__ == "__main__":
  main()
