"""Files in engines, a few runs of each at a time, while the others wait.

What else the machine does then meets all alike, and ratios are of neighbours.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import infer_worker

_BLOCK_SECONDS = 0.1  # about so long runs one file before the next one's turn

# The seconds of each run ("wall", "cpu") and the process's memory ("peak").
Sample = dict[str, Any]
# Of a table: the key of a result, a factor, and how the product is written.
Column = tuple[str, float, str]


@dataclasses.dataclass(frozen=True)
class Case:
  """What is measured: a net's file in an engine with some threads."""

  model: str
  engine: str
  precision: str
  threads: int

  @property
  def clock(self) -> str:
    """The time that counts.

    Of one thread its processor's: what other processes take isn't in it.
    """
    return "cpu" if self.threads == 1 else "wall"


@dataclasses.dataclass(frozen=True)
class Job:
  """What a worker is given.

  Attributes:
    path: of the file.
    size: image side, in pixels.
    suppression: arguments of `nms.Suppression` for what runs after the file;
      None for nothing.
    python: the interpreter that has the engine.
  """

  path: pathlib.Path
  size: int
  suppression: Mapping[str, Any] | None = None
  python: str = sys.executable


class _Worker:
  """A process of `infer_worker`."""

  def __init__(self, case: Case, job: Job):
    # -P keeps this folder off the path: its `clock.py` and `timing.py` would
    # be found before others' modules of the same names.
    script = [job.python, "-P", infer_worker.__file__]
    arguments = [case.engine, str(job.path), str(job.size), str(case.threads)]
    arguments.append(json.dumps(job.suppression))
    self._process = subprocess.Popen(
      [*script, *arguments],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    self._name = f"{case.model}, {case.engine} {case.precision}"

  def run(self, times: int) -> Sample:
    """Runs the file so often; see `infer_worker`."""
    process = self._process
    assert process.stdin and process.stdout and process.stderr
    try:
      print(times, file=process.stdin, flush=True)
      line = process.stdout.readline()
    except BrokenPipeError:
      line = ""
    # No line: the worker has ended. Its last words say why.
    if not line:
      process.kill()
      words = process.stderr.read().strip().splitlines() or ["it stopped"]
      raise ValueError(f"{self._name}: {words[-1]}")
    return json.loads(line)

  def stop(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()


@contextlib.contextmanager
def _workers(cases: Mapping[Case, Job]) -> Iterator[dict[Case, _Worker]]:
  with contextlib.ExitStack() as stack:
    workers = {}
    for case, job in cases.items():
      workers[case] = _Worker(case, job)
      stack.callback(workers[case].stop)
      workers[case].run(2)  # alone, while it gets ready
    yield workers


def measure(cases: Mapping[Case, Job], rounds: int) -> dict[Case, list[Sample]]:
  """A sample of each case in each round."""
  samples: dict[Case, list[Sample]] = {case: [] for case in cases}
  with _workers(cases) as workers:
    times = {}
    # About a tenth of a second each turn: fast nets run often, slow ones once.
    for case, worker in workers.items():
      seconds = statistics.median(worker.run(3)["wall"])
      times[case] = max(1, round(_BLOCK_SECONDS / seconds))
    for _ in range(rounds):
      for case, worker in workers.items():
        samples[case].append(worker.run(times[case]))
  return samples


def median(samples: Sequence[Sample], clock: str) -> float:
  """Seconds of a run."""
  return statistics.median(second for s in samples for second in s[clock])


def ratio(
  ours: Sequence[Sample], theirs: Sequence[Sample], clock: str
) -> float:
  """Median over the rounds of one round's ratio of medians."""
  return statistics.median(
    # Neighbouring blocks are compared, and the median taken over rounds: a slow
    # minute then falls on both.
    median([a], clock) / median([b], clock)
    for a, b in zip(ours, theirs, strict=True)
  )


def table(
  results: Sequence[Mapping[str, Any]],
  words: Sequence[str],
  columns: Mapping[str, Column],
) -> list[str]:
  """Lines of aligned columns, the header first; what a result lacks is empty.

  Args:
    results: a row each.
    words: keys of what is written as it is.
    columns: of numbers, by their titles.
  """
  rows = [(*words, *columns)]
  for result in results:
    numbers = (
      "" if result.get(key) is None else f"{result[key] * factor:{form}}"
      for key, factor, form in columns.values()
    )
    rows.append((*(str(result[key]) for key in words), *numbers))
  forms = [
    f"{'<' if index < len(words) else '>'}{max(map(len, column))}"
    for index, column in enumerate(zip(*rows, strict=True))
  ]
  return ["  ".join(map(format, row, forms)).rstrip() for row in rows]
