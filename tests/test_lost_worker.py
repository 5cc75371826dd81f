"""A worker that the system kills ends the run in one line, to go on from.

Nor does a run that is killed whole leave anything in memory for good.
"""

import os
import pathlib
import re
import signal

import pytest

from tests import endurance

pytestmark = pytest.mark.slow


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
    process.wait_until(
      lambda p=process: endurance.workers(p.popen.pid), "workers"
    )
    os.kill(endurance.workers(process.popen.pid)[0], signal.SIGKILL)
    stderr = process.finish(timeout=60, expect=1).stderr
    assert stderr.startswith("error: a worker process that loads data was kill")
    assert stderr.count("\n") == 1
  assert re.search(r"worker .* killed: \d+ \(-9\)", stderr)
  # Now all of it at once.
  process = start_main(args)
  process.wait_until(lambda: endurance.workers(process.popen.pid), "workers")
  process.kill()
  left = endurance.left()
  assert left
  last = run_main(args)
  assert "resuming at step" in last.stdout
  assert not left & endurance.left()
  assert last.stderr == ""
