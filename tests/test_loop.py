"""The training loop in this process, on a net that compiles in seconds."""

import json
import logging
import re

import jax
import pytest

from configs import digits
from mobilevit_jax import models
from mobilevit_jax import train
from mobilevit_jax.run import progress
from tests import tiny


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(models.FAMILIES, "tiny", tiny.FAMILY)
  config = digits.get_config()
  config.model.name = "tiny"
  config.plan.update(num_steps=8, base_batch=64, sizes=(16, 32, 48))
  config.eval.size = 16
  config.log_every_steps = 1
  return config


def _traced_steps(path):
  planes = jax.profiler.ProfileData.from_file(str(path)).planes
  return {
    dict(event.stats)["step_num"]
    for plane in planes
    for line in plane.lines
    for event in line.events
    if event.name == "train"
  }


def test_each_shape_is_compiled_once_and_nothing_later(
  config, tmp_path, capsys, caplog
):
  config.profile.update(start_step=2, num_steps=3)
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    train.train_and_evaluate(config, tmp_path)
  pattern = re.compile(r"Finished XLA compilation of jit\(train_step\)")
  compiled = [m for m in caplog.messages if pattern.match(m)]
  stdout = capsys.readouterr().out
  # 64 at 32 px: 256 at 16 px, and no fewer than 64 at 48 px.
  for shape in ("256 images of 16 px", "64 images of 32", "64 images of 48"):
    assert stdout.count(shape) == 1
  print(f"{len(compiled)} compilations of the train step for 3 shapes")
  assert len(compiled) == 3
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  sizes = {json.loads(line).get("image_size") for line in lines}
  assert len(sizes - {None}) > 1
  (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
  assert _traced_steps(trace) == {2, 3, 4}


def test_loss_that_is_not_finite_ends_the_run(config, tmp_path):
  config.checkpoint.every_steps = 1
  config.plan.sizes = (16,)
  config.optim.update(init_lr=1e30, warmup_steps=1)
  with pytest.raises(progress.NonFiniteError) as caught:
    train.train_and_evaluate(config, tmp_path)
  message = str(caught.value)
  step = re.search(r"(loss|grad_norm) is (nan|inf) at step (\d+)", message)
  assert step, message
  last_good = re.search(r"last good checkpoint: (none|step (\d+))", message)
  assert last_good, message
  saved = {path.name for path in (tmp_path / "checkpoints").iterdir()}
  assert all(int(name) < int(step[3]) for name in saved)


def test_plan_past_its_end_only_evaluates(config, tmp_path, capsys):
  config.plan.sizes = (16,)
  first = train.train_and_evaluate(config, tmp_path)
  capsys.readouterr()
  again = train.train_and_evaluate(config, tmp_path)
  assert again == first
  assert "compiled 1/1" not in capsys.readouterr().out
  config.plan.num_steps = 4
  with pytest.raises(ValueError, match="step 8, past the 4 steps"):
    train.train_and_evaluate(config, tmp_path)
