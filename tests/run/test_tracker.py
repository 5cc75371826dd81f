"""Weights & Biases, by a stand-in that has the calls its manual names.

The library is no requirement. With the real one, 0.31 and offline, it was tried
by hand.
"""

import sys
import types

import pytest

from mobilevit_jax import config
from mobilevit_jax.run import tracker
from mobilevit_jax.run import writer as writer_lib


class _Run:
  """What `wandb.init` returns."""

  def __init__(self, calls):
    self._calls = calls

  def define_metric(self, name, *, step_metric):
    self._calls.append(("define", name, step_metric))

  def log(self, data):
    self._calls.append(("log", data))

  def finish(self):
    self._calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch):
  """The stand-in; its `calls` are those that were made."""
  module = types.ModuleType("wandb")
  module.calls, module.fails = [], None
  module.Settings = lambda **fields: fields
  module.__spec__ = types.SimpleNamespace(name="wandb")

  def init(**fields):
    if module.fails:
      raise module.fails
    module.calls.append(("init", fields))
    return _Run(module.calls)

  module.init = init
  monkeypatch.setitem(sys.modules, "wandb", module)
  return module


def _writer(workdir, **fields):
  opener = tracker.opener("wandb", workdir, {"seed": 3})
  return writer_lib.Writer(workdir, open_tracker=opener, **fields)


def test_it_gets_what_tensorboard_gets_and_a_resumed_run_is_the_same(
  wandb, tmp_path
):
  folder = tmp_path / "digits"
  for step in (0, 4):
    writer = _writer(folder)
    writer.rewind(step)
    writer.note_start(step)
    writer.write(step + 1, "train", {"loss": 1.5, "epoch": 0})
    writer.write(step + 2, "eval", {"ema_top1": 0.5})
    writer.close()
  starts = [fields for name, *fields in wandb.calls if name == "init"]
  (first,), (second,) = starts
  assert first == second
  assert (first["name"], first["dir"]) == ("digits", str(folder))
  assert (first["config"], first["resume"]) == ({"seed": 3}, "allow")
  assert first["settings"]["console"] == "off"
  assert wandb.calls[1:5] == [
    ("define", "*", "step"),
    ("log", {"step": 1, "train/loss": 1.5, "train/epoch": 0}),
    ("log", {"step": 2, "eval/ema_top1": 0.5}),
    ("finish",),
  ]
  # Another run is another one there, whatever its folder is called.
  other = _writer(tmp_path / "other" / "digits")
  other.note_start(0)
  other.close()
  assert wandb.calls[-3][1]["id"] != first["id"]


def test_off_it_is_not_asked_and_other_processes_never_ask(wandb, tmp_path):
  assert tracker.opener("none", tmp_path, {}) is None
  writer = _writer(tmp_path, enabled=False)
  writer.note_start(0)
  writer.write(1, "train", {"loss": 1.0})
  writer.close()
  assert wandb.calls == []


def test_what_is_wrong_is_one_line(wandb, tmp_path, monkeypatch):
  wandb.fails = RuntimeError("api_key not configured (no-tty).\nmore")
  writer = _writer(tmp_path)
  with pytest.raises(config.ConfigError) as caught:
    writer.note_start(0)
  writer.close()
  assert str(caught.value) == (
    "config.tracker='wandb': api_key not configured (no-tty); "
    "WANDB_MODE=offline needs no network"
  )
  monkeypatch.delitem(sys.modules, "wandb")
  monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(config.ConfigError, match=r"mobilevit-jax\[wandb\]'$"):
    tracker.opener("wandb", tmp_path, {})
