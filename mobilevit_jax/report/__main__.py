"""Writes a run's report: `WORKDIR/report/index.html`, one file.

    python -m mobilevit_jax.report WORKDIR

Learning curves, accuracy by class, confusion, the worst mistakes as pictures,
calibration, the data's check, the configuration and the command. It evaluates
the run's weights once more, as the run did.
"""

import argparse
from collections.abc import Sequence
import sys

from mobilevit_jax.report import document
from mobilevit_jax.run import stop
from mobilevit_jax.run.checkpoint import CheckpointError
from mobilevit_jax.weights import source as source_lib


@stop.in_one_line("report", "the run is untouched, and its report whole")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where the report can't be made."""
  args = _parser().parse_args(argv)
  try:
    if args.mistakes < 0:
      raise ValueError(f"--mistakes={args.mistakes} must not be negative")
    path = document.write(
      args.workdir,
      which=args.which,
      data_dir=args.data_dir,
      most_mistakes=args.mistakes,
    )
  except (CheckpointError, ValueError, OSError) as error:
    print(f"report: {error}", file=sys.stderr)
    return 1
  print(path)
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mobilevit_jax.report",
    description="Writes a run's report as one HTML file.",
  )
  parser.add_argument("workdir", metavar="WORKDIR")
  parser.add_argument(
    "--which",
    choices=source_lib.WHICH,
    default="auto",
    help="weights; auto: the best of a run that stops early, else the EMA",
  )
  parser.add_argument("--data_dir", help="where the data is, if it was moved")
  parser.add_argument(
    "--mistakes", type=int, default=24, help="pictures; default: %(default)s"
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
