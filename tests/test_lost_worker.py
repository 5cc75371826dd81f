"""A worker that the system kills ends the run in one line, to go on from.

Nor does a run that is killed whole leave anything in memory for good.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import signal

import pytest

pytestmark = pytest.mark.slow


def _workers(parent):
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


@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="reads /proc")
def test_killed_worker_is_named_and_the_run_goes_on(
  start_main, run_main, tmp_path
):
  args = [
    "--config=tests/tiny_config.py",
    f"--workdir={tmp_path / 'run'}",
    "--config.data.num_workers=2",
    "--config.checkpoint.every_steps=5",
  ]
  # The evaluation's first workers, in the midst of training's, are the third
  # and the fourth: an early one has not read yet what it is to do.
  for moment in ("start", "step 12/30"):
    process = start_main(args)
    if moment != "start":
      process.wait_for_output(moment)
    process.wait_until(lambda p=process: _workers(p.popen.pid), "workers")
    os.kill(_workers(process.popen.pid)[0], signal.SIGKILL)
    stderr = process.finish(timeout=60, expect=1).stderr
    assert stderr.startswith("error: a worker process that loads data was kill")
    assert stderr.count("\n") == 1
  assert re.search(r"worker .* killed: \d+ \(-9\)", stderr)
  # Now all of it at once.
  process = start_main(args)
  process.wait_until(lambda: _workers(process.popen.pid), "workers")
  process.kill()
  left = _left()
  assert left
  last = run_main(args)
  assert "resuming at step" in last.stdout
  assert not left & _left()
  assert last.stderr == ""


def _left():
  """What lies in memory of runs that are dead; others may be at work."""
  found = set()
  for folder in pathlib.Path("/dev/shm").glob("mobilevit-*"):
    with contextlib.suppress(OSError):
      number = os.open(folder, os.O_RDONLY)
      try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found.add(folder)
      finally:
        os.close(number)
  return found
