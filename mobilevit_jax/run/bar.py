"""What a run says: lines, and on a terminal a bar of steps under them.

Lines go to standard output, the bar to standard error, so that a log or a pipe
gets the lines alone.
"""

import sys

import jax
import tqdm

from mobilevit_jax import files


def say(text: str) -> None:
  """A line on standard output, from the first process alone."""
  if jax.process_index() == 0:
    # It takes a bar away first, and draws it again below.
    tqdm.tqdm.write(files.printable(text), file=sys.stdout)
    sys.stdout.flush()


def steps(start: int, num_steps: int) -> tqdm.tqdm:
  """A bar of the steps done, from `start` on; close it in the end.

  It draws nothing where standard error is no terminal, and in other processes
  than the first.
  """
  shown = jax.process_index() == 0 and sys.stderr.isatty()
  return tqdm.tqdm(
    initial=start,
    total=num_steps,
    unit="step",
    leave=False,
    dynamic_ncols=True,
    disable=not shown,
  )
