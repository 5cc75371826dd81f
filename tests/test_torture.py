"""A run that is killed again and again ends as one that nobody touches.

make torture            20 kills of digits.py
make torture CONFIG=tests/tiny_segment_config.py KILLS=5 \\
  FIELDS=--config.data.dir=FOLDER
"""

import os
import random
import re
import time

import pytest

from tests import runs

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "3"))
CONFIG = os.environ.get("TORTURE_CONFIG", "tests/tiny_config.py")
FIELDS = os.environ.get("TORTURE_FIELDS", "").split()
STEPS = 10 * KILLS + 10


def _args(workdir):
  return [
    f"--config={CONFIG}",
    f"--workdir={workdir}",
    f"--config.plan.num_steps={STEPS}",
    "--config.log_every_steps=1",
    "--config.checkpoint.every_steps=3",
    "--config.checkpoint.keep=2",
    *FIELDS,
  ]


def _kill(process, workdir, kind, rng):
  """Waits for the moment, and kills the process and its workers."""
  if kind == "start":
    time.sleep(rng.uniform(0, 10))
  elif kind == "step":
    count = rng.randint(1, 6)
    lines = re.compile(r"^step \d+/", re.MULTILINE)
    process.wait_until(
      lambda: len(lines.findall(process.stdout)) >= count, "steps"
    )
    time.sleep(rng.uniform(0, 0.3))
  else:
    before = set((workdir / "checkpoints").glob("*"))

    def saving():
      found = (workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")
      return set(found) - before

    process.wait_until(saving, "a checkpoint being written")
    time.sleep(rng.uniform(0, 0.05))
  process.kill()


def _complete(workdir):
  """The complete checkpoints, oldest first."""
  steps = (workdir / "checkpoints").glob("[0-9]*")
  return sorted(
    (path for path in steps if path.name.isdigit()), key=lambda p: int(p.name)
  )


def test_killed_run_ends_as_one_that_is_not(start_main, run_main, tmp_path):
  reference, workdir = tmp_path / "reference", tmp_path / "killed"
  run_main(_args(reference), timeout=3600)
  rng = random.Random()
  for number in range(KILLS):
    kind = ("save", "step", "start")[number % 3]
    process = start_main(_args(workdir))
    _kill(process, workdir, kind, rng)
    steps = re.findall(
      r"^(?:step|resuming at step) (\d+)", process.stdout, re.M
    )
    at = steps[-1] if steps else "none yet"
    print(f"kill {number + 1}/{KILLS} ({kind}): step {at}", flush=True)
  process = start_main(_args(workdir))
  process.wait_until(lambda: len(_complete(workdir)) > 1, "two checkpoints")
  process.kill()
  for path in _complete(workdir)[-1].rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  last = run_main(_args(workdir), timeout=3600)
  assert "warning: using the checkpoint before" in last.stdout
  runs.assert_same(workdir, reference)
