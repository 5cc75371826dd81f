"""One run of several processes, through the real command, on this machine."""

import re
import signal
import time

import numpy as np
import pytest

from tests import runs

pytestmark = pytest.mark.slow

STEPS = 30
# A process that lost another leaves; JAX's own limit is 100 s without a sign.
_LIMIT = 200


def _args(workdir, *more):
  return [
    "--config=tests/tiny_config.py",
    f"--workdir={workdir}",
    f"--config.plan.num_steps={STEPS}",
    "--config.checkpoint.every_steps=4",
    *more,
  ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, start_main_module):
  """One process with eight devices."""
  workdir = tmp_path_factory.mktemp("run") / "reference"
  start_main_module(_args(workdir), devices=8).finish()
  return workdir


def _assert_same(workdir, reference):
  """The same losses, evaluations and files."""
  difference = np.abs(runs.losses(workdir) - runs.losses(reference)).max()
  print(f"losses differ by {difference:.1e} at most")
  assert difference <= 1e-5
  actual, expected = (
    [r for r in runs.records(folder) if r["kind"] == "eval"]
    for folder in (workdir, reference)
  )
  assert len(actual) == len(expected)
  for one, other in zip(actual, expected, strict=True):
    for name in ("step", "images", "ema_top1", "raw_top1", "raw_top5"):
      assert one[name] == other[name], name
  for folder in ("checkpoints", "best"):
    names = [
      sorted(p.name for p in (root / folder).iterdir())
      for root in (workdir, reference)
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize(("count", "devices"), [(2, 4), (4, 2)])
def test_processes_train_as_one(
  reference, start_processes, tmp_path, count, devices
):
  processes = start_processes(count, _args(tmp_path), devices)
  finished = [process.finish() for process in processes]
  _assert_same(tmp_path, reference)
  assert len(list((tmp_path / "tensorboard").iterdir())) == 1
  assert len((tmp_path / "starts.jsonl").read_text().splitlines()) == 1
  assert f"8 x cpu, {count} process(es)" in finished[0].stdout
  assert not any(other.stdout.startswith("step") for other in finished[1:])


def test_sigterm_to_one_stops_all_and_fewer_go_on(
  reference, start_processes, tmp_path
):
  at = 0
  for count in (4, 2):
    processes = start_processes(count, _args(tmp_path))
    processes[0].wait_for_output(f"step {at + 5}/{STEPS}")
    processes[-1].popen.send_signal(signal.SIGTERM)
    ends = [process.finish(expect=143).stderr for process in processes]
    steps = {
      re.search(r"stopped by SIGTERM at step (\d+) of 30, ", end)[1]
      for end in ends
    }
    assert len(steps) == 1
    if at:
      assert f"resuming at step {at} of {STEPS}" in processes[0].stdout
    at = int(steps.pop())
    assert (tmp_path / "checkpoints" / str(at)).is_dir()
  last = start_processes(1, _args(tmp_path))[0].finish()
  assert f"resuming at step {at} of {STEPS}" in last.stdout
  _assert_same(tmp_path, reference)


@pytest.mark.parametrize("victim", [0, 1])
def test_sigkill_of_one_ends_the_other_and_a_restart_goes_on(
  reference, start_processes, run_main, tmp_path, victim
):
  processes = start_processes(2, _args(tmp_path))
  saved = tmp_path / "checkpoints" / "4" / "_CHECKPOINT_METADATA"
  processes[0].wait_until(saved.exists, "checkpoint 4")
  processes[victim].kill()
  left = processes[1 - victim].finish(timeout=_LIMIT, expect=None)
  # By itself, or by JAX's runtime, which aborts: what a shell calls 134.
  assert left.returncode in (134, -signal.SIGABRT), left.stderr
  told = "lost another process of the run" in left.stderr
  assert told or "Terminating process because" in left.stderr
  resumed = run_main(_args(tmp_path))
  assert re.search(r"resuming at step \d+ of 30", resumed.stdout)
  _assert_same(tmp_path, reference)


def test_late_compilation_of_one_is_waited_for(start_processes, tmp_path):
  args = [
    "--config=tests/slow_compile_config.py",
    f"--workdir={tmp_path}",
    "--config.plan.num_steps=2",
  ]
  processes = start_processes(2, args)
  started = time.monotonic()
  for process in processes:
    process.finish(timeout=_LIMIT)
  assert time.monotonic() - started > 35
