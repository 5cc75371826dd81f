"""Writes a run's report: `WORKDIR/report/index.html`, one file.

    python -m mobilevit_jax.report WORKDIR

Learning curves, accuracy by class, confusion, the worst mistakes as pictures,
calibration, the data's check, the configuration and the command. It evaluates
the run's weights once more, as the run did.
"""

from collections.abc import Sequence
import sys

from mobilevit_jax.command import arguments
from mobilevit_jax.report import document
from mobilevit_jax.run import stop
from mobilevit_jax.run.checkpoint import CheckpointError


@stop.in_one_line("report", "the run is untouched, and its report whole")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where the report can't be made."""
  args = arguments.report().parse_args(argv)
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


if __name__ == "__main__":
  sys.exit(main())
