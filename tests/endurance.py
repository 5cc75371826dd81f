"""Whether a long run takes more and more: memory, files, threads, workers.

    python -m tests.endurance [STEPS] [--kills=N]

trains a tiny net on the digits for STEPS steps (20,000), with two workers, and
prints what its process holds after the first 1,000 and at the end. With kills,
that many times on the way a worker is killed, as an out-of-memory killer does,
or every third time all processes of the run at once. Each time the run must
end, in one line where its own process lives, and the same command must go on
with it; what the starts hold is compared, and nothing may be left.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

FIRST = 1000
MEMORY = pathlib.Path("/dev/shm")
_LOST = "error: a worker process that loads data was killed"
_SECONDS = 60  # for a run to end once its worker is gone
# What the last start may hold more than the first: noise.
_NOISE = {
  "memory, MB": 60,
  "file descriptors": 2,
  "threads": 2,
  "MB in /dev/shm": 1,
}


def held(pid: int) -> dict[str, float]:
  """What a process holds: MB, descriptors, threads, and its batches' memory."""
  process = pathlib.Path(f"/proc/{pid}")
  status = dict(
    line.split(":", 1) for line in (process / "status").read_text().splitlines()
  )
  descriptors = [*(process / "fd").iterdir()]
  size = 0
  for descriptor in descriptors:  # one is its folder's, which it has locked
    with contextlib.suppress(OSError):
      place = descriptor.readlink()
      if place.parent == MEMORY and place.name.startswith("mobilevit-"):
        size += sum(path.stat().st_size for path in place.iterdir())
  # Batches that it has taken have no name any more.
  for line in (process / "maps").read_text().splitlines():
    if f"{MEMORY}/mobilevit-" in line:
      begin, end = (int(number, 16) for number in line.split()[0].split("-"))
      size += end - begin
  return {
    "memory, MB": int(status["VmRSS"].split()[0]) / 1024,
    "file descriptors": len(descriptors),
    "threads": int(status["Threads"]),
    "MB in /dev/shm": size / 2**20,
  }


def workers(parent: int) -> list[int]:
  """Process ids of the workers of a run that are alive."""
  found = []
  for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      state, owner = stat.read_text().rpartition(")")[2].split()[:2]
      command = stat.with_name("cmdline").read_text()
    except OSError:  # it ended meanwhile
      continue
    if owner == str(parent) and state != "Z" and "spawn_main" in command:
      found.append(int(stat.parent.name))
  return found


def left() -> set[pathlib.Path]:
  """Folders in memory of runs that are dead; others may be at work."""
  found = set()
  for folder in MEMORY.glob("mobilevit-*"):
    with contextlib.suppress(OSError):
      number = os.open(folder, os.O_RDONLY)
      try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found.add(folder)
      finally:
        os.close(number)
  return found


@dataclasses.dataclass
class Start:
  """One start of the run.

  Attributes:
    rows: what it held at each of its log lines, by step.
    resumed: the step that it went on from; 0 for the first.
    killed: whether it was.
    problem: what should not have been; empty for nothing.
  """

  rows: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)
  resumed: int = 0
  killed: bool = False
  problem: str = ""


def run(
  command: list[str], kill_at: int | None, whole: bool, say: str
) -> Start:
  """Starts the run, and follows it to its end.

  Args:
    command: to start.
    kill_at: the step from which on a worker is killed; None for none.
    whole: kill all its processes in place of a worker.
    say: begins each line that is printed.
  """
  start, ended = Start(), 0.0
  with (
    tempfile.TemporaryFile("w+") as errors,
    subprocess.Popen(
      command,
      stdout=subprocess.PIPE,
      stderr=errors,
      text=True,
      start_new_session=True,  # a group of its own, to be killed
    ) as process,
  ):
    assert process.stdout is not None
    for line in process.stdout:
      words = line.split()
      if words[:2] == ["resuming", "at"]:
        start.resumed = int(words[3])
      if words[:1] != ["step"] or "loss" not in words or start.killed:
        continue
      step = int(words[1].partition("/")[0])
      start.rows[step] = held(process.pid)
      what = ", ".join(f"{k} {v:.0f}" for k, v in start.rows[step].items())
      if kill_at is not None and step >= kill_at:
        start.killed, ended = True, time.monotonic()
        alive = workers(process.pid)
        if whole:
          os.killpg(process.pid, signal.SIGKILL)
        else:
          os.kill(alive[step % len(alive)], signal.SIGKILL)
        what += f"; killed {'everything' if whole else 'a worker'}"
      if start.killed or step % FIRST == 0:
        print(f"{say}step {step}: {what}", flush=True)
    code = process.wait()
    errors.seek(0)
    said = errors.read()
  if not start.killed:
    expected = code == 0 and said == ""
  elif whole:
    expected = code == -signal.SIGKILL and said == ""
  else:
    expected = code == 1 and re.fullmatch(f"{_LOST}.*\n", said) is not None
  if not expected:
    start.problem = f"exit code {code}, and it said: {said[-2000:]}"
  elif start.killed and time.monotonic() - ended > _SECONDS:
    start.problem = f"it took over {_SECONDS} s to end"
  return start


def main(argv: list[str] | None = None) -> int:
  """Runs it; prints a line each thousand steps, then the two ends."""
  parser = argparse.ArgumentParser()
  parser.add_argument("steps", nargs="?", type=int, default=20_000)
  parser.add_argument("--kills", type=int, default=0)
  args = parser.parse_args(argv)
  every = args.steps // (args.kills + 1)
  before, begin, starts = left(), time.monotonic(), []
  with tempfile.TemporaryDirectory() as workdir:
    command = [sys.executable, "-m", "mobilevit_jax.main"]
    command += ["--config=tests/tiny_config.py", f"--workdir={workdir}"]
    for field, value in {
      "plan.num_steps": args.steps,
      "plan.base_batch": 8,
      "data.num_workers": 2,
      "eval.every_epochs": 25,
      "checkpoint.every_steps": max(1, min(500, every // 2)),
      "log_every_steps": min(FIRST, max(1, every // 10)),
    }.items():
      command.append(f"--config.{field}={value}")
    while True:
      number = len(starts)
      kill_at = (number + 1) * every if number < args.kills else None
      say = f"start {number + 1}, " * bool(args.kills)
      starts.append(run(command, kill_at, number % 3 == 2, say))
      if starts[-1].problem or not starts[-1].killed:
        break
    seconds = time.monotonic() - begin
  problems = [start.problem for start in starts if start.problem]
  ends = [*starts[0].rows.items()][-1], [*starts[-1].rows.items()][-1]
  if not args.kills:
    rows = starts[0].rows
    at = FIRST if FIRST in rows else min(rows)
    ends = (at, rows[at]), ends[1]
  print(f"{'':<20}{f'step {ends[0][0]}':>12}{f'step {ends[1][0]}':>12}")
  for name, first in ends[0][1].items():
    last = ends[1][1][name]
    print(f"{name:<20}{first:>12.1f}{last:>12.1f}")
    if last > first + _NOISE[name]:
      problems.append(f"{name}: {last - first:.1f} more")
  if more := left() - before:
    problems.append(f"left in memory: {sorted(map(str, more))}")
  redone = sum(
    max(one.rows, default=0) - other.resumed
    for one, other in itertools.pairwise(starts)
  )
  print(f"{len(starts)} starts, {redone} steps done twice, {seconds:.0f} s")
  print("\n".join(f"PROBLEM: {one}" for one in problems) or "nothing is lost")
  return bool(problems)


if __name__ == "__main__":
  sys.exit(main())
