"""A folder belongs to one run; what died in it needs nobody's hand."""

import json
import os
import signal
import subprocess
import sys
import time

from etils import epath
import pytest

from mobilevit_jax import config
from mobilevit_jax.run import lock
from tests import bucket
from tests import runs


@pytest.fixture(params=["local", "memory"])
def workdir(request, tmp_path, monkeypatch):
  if request.param == "local":
    return epath.Path(tmp_path)
  return bucket.path(monkeypatch)


def _lock(workdir, **fields):
  said = []
  made = lock.Lock(workdir, say=said.append, **{"beat": 0.1, **fields})
  return made, said


def _leave(workdir, **fields):
  """Writes what somebody else left there."""
  content = {
    "host": lock._host(),
    "process": os.getpid(),
    "process_start": "0",
    "token": "other",
    "time": 0,
  }
  (workdir / lock.FILE).write_text(json.dumps(content | fields))


def test_second_is_refused_until_the_first_ends(workdir):
  first, _ = _lock(workdir)
  first.take()
  seen = json.loads((workdir / lock.FILE).read_text())
  with pytest.raises(config.ConfigError) as caught:
    _lock(workdir)[0].take()
  message = str(caught.value)
  assert f"process {os.getpid()} on {lock._host().split()[0]}" in message
  assert "last sign of life" in message and "\n" not in message
  deadline = time.monotonic() + 20
  while json.loads((workdir / lock.FILE).read_text()) == seen:
    assert time.monotonic() < deadline, "no sign of life"
    time.sleep(0.05)
  first.release()
  assert not (workdir / lock.FILE).exists()
  second, said = _lock(workdir)
  second.take()
  second.release()
  assert not said


def test_killed_process_of_this_host_is_not_waited_for(workdir):
  gone = subprocess.run(
    [sys.executable, "-c", "import os; print(os.getpid())"],
    capture_output=True,
    check=True,
  )
  for process in (int(gone.stdout), os.getpid()):
    # Our own number, which another process had before.
    _leave(workdir, process=process)
    made, said = _lock(workdir)
    made.take()
    made.release()
    assert not said


def test_dead_host_is_waited_for_once(workdir):
  _leave(workdir, host="elsewhere")
  made, said = _lock(workdir, wait=0.3)
  made.take()
  assert len(said) == 1 and "on elsewhere" in said[0]
  assert json.loads((workdir / lock.FILE).read_text())["host"] == lock._host()
  made.release()


def test_live_host_is_refused_by_its_sign_of_life(workdir, monkeypatch):
  _leave(workdir, host="elsewhere", process=77)
  beats = iter(range(1, 9))

  def sleep(seconds):
    _leave(workdir, host="elsewhere", process=77, time=next(beats))

  monkeypatch.setattr(lock.time, "sleep", sleep)
  with pytest.raises(config.ConfigError, match="process 77 on elsewhere"):
    _lock(workdir)[0].take()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}"])
def test_half_a_file_is_nobodys(workdir, content):
  (workdir / lock.FILE).write_text(content)
  made, _ = _lock(workdir)
  made.take()
  made.release()


@pytest.mark.slow
def test_second_start_on_a_workdir_is_refused(start_main, run_main, tmp_path):
  args = ["--config=tests/tiny_config.py", f"--workdir={tmp_path}"]
  first = start_main(args)
  first.wait_for_output("step 3/30")
  first.popen.send_signal(signal.SIGSTOP)  # so that it can't be done by then
  second = run_main(args, expect=1)
  first.popen.send_signal(signal.SIGCONT)
  assert second.stderr.count("\n") == 1
  assert f"is in use by process {first.popen.pid} on " in second.stderr
  first.finish()
  assert len(runs.losses(tmp_path)) == 30  # of each step one
  assert not (tmp_path / lock.FILE).exists()
