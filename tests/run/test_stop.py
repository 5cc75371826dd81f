"""Ctrl-C ends every command in one line, with exit code 130."""

import argparse
import pathlib
import signal
import time

import numpy as np
from PIL import Image
import pytest

from mobilevit_jax import predict
from mobilevit_jax import summary
from mobilevit_jax.data import __main__ as data
from mobilevit_jax.demo import __main__ as demo
from mobilevit_jax.export import __main__ as export
from mobilevit_jax.report import __main__ as report
from mobilevit_jax.run import stop
from mobilevit_jax.weights import __main__ as weights

LINUX = pathlib.Path("/proc/self/maps").exists()
COMMANDS = {
  "predict": predict,
  "summary": summary,
  "data": data,
  "demo": demo,
  "export": export,
  "report": report,
  "convert": weights,
}


def _images(folder, count):
  """Two classes of pictures that take a while to read."""
  rng = np.random.default_rng(0)
  for place in ("train/a", "train/b", "val/a", "val/b"):
    (folder / place).mkdir(parents=True)
    first = folder / place / "0.jpg"
    pixels = rng.integers(0, 256, (1500, 1500, 3), np.uint8)
    Image.fromarray(pixels).save(first, quality=90)
    for index in range(1, count):
      (folder / place / f"{index}.jpg").hardlink_to(first)


def _interrupt(process):
  """Sends Ctrl-C; gives the seconds to the end, and what was said."""
  begin = time.monotonic()
  process.popen.send_signal(signal.SIGINT)
  stderr = process.finish(timeout=60, expect=130).stderr
  assert "Traceback" not in stderr
  return time.monotonic() - begin, stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_in_the_midst(name, monkeypatch, capsys):
  def interrupted(**_):
    raise KeyboardInterrupt

  monkeypatch.setattr(argparse, "ArgumentParser", interrupted)
  assert COMMANDS[name].main(["x"]) == 130
  err = capsys.readouterr().err
  assert err.startswith(f"{name}: interrupted; ")
  assert err.count("\n") == 1


def test_stopped_run_has_its_signal_as_exit_code(capsys):
  @stop.in_one_line("main", "all is well")
  def main():
    raise stop.Stopped(signal.SIGTERM, 3, 9)

  assert main() == 143
  assert "stopped by SIGTERM at step 3 of 9" in capsys.readouterr().err


def test_signal_before_a_step_loses_nothing():
  with stop.StopSignals(lambda name: None) as signals:
    signals.before_step(4, 9)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(stop.Stopped, match=r"before step 5 of 9: nothing is"):
      signals.before_step(4, 9)


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize("module", ["main", "predict"])
def test_interrupted_before_it_began(start_main, tmp_path, module):
  args = ["--config=tests/tiny_config.py", f"--workdir={tmp_path / 'run'}"]
  process = start_main(args, module=f"mobilevit_jax.{module}")
  maps = pathlib.Path(f"/proc/{process.popen.pid}/maps")
  process.wait_until(lambda: "jaxlib" in maps.read_text(), "JAX")
  _, stderr = _interrupt(process)
  assert "interrupted" in stderr
  assert stderr.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_second_interrupt_of_a_run_ends_it(start_main, tmp_path):
  args = [
    "--config=tests/tiny_config.py",
    f"--workdir={tmp_path / 'run'}",
    "--config.plan.num_steps=3000",
  ]
  process = start_main(args)
  process.wait_for_output("step 5/")
  process.popen.send_signal(signal.SIGINT)
  _, stderr = _interrupt(process)
  # It may have been saved already by then.
  one = "main: interrupted; what the run saved is whole" in stderr
  assert one or "stopped by SIGINT at step" in stderr
  assert stderr.count("\n") == 1


def test_interrupted_check_ends_within_two_seconds(start_main, tmp_path):
  _images(tmp_path, 200)
  args = ["check", f"--data_dir={tmp_path}"]
  process = start_main(args, module="mobilevit_jax.data")
  tasks = pathlib.Path(f"/proc/{process.popen.pid}/task")
  process.wait_until(
    lambda: not LINUX or len([*tasks.iterdir()]) > 2, "threads that read"
  )
  time.sleep(0.5)
  seconds, stderr = _interrupt(process)
  assert stderr == "data: interrupted; what was finished is whole\n"
  assert seconds < 2
