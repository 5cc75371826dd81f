"""The best evaluation, and runs that stop when there is no better one."""

import dataclasses
import json

import numpy as np
import pytest

from configs import digits
from mobilevit_jax import models
from mobilevit_jax import train
from mobilevit_jax.run import progress
from mobilevit_jax.weights.source import read_weights
from tests import runs
from tests import tiny


def test_equals_are_decided_by_the_loss_then_by_the_later_step():
  best = progress.Best()
  steps = []
  for step, loss in enumerate([0.5, 0.4, 0.6, 0.4, 0.7], start=1):
    best.add(step, 0.9, loss)
    steps.append(best.step)
  assert steps == [1, 2, 2, 4, 4]
  assert (best.value, best.loss, best.waited) == (0.9, 0.4, 4)
  best.add(6, 0.91, 9.0)
  assert (best.step, best.waited) == (6, 0)


def test_only_a_higher_metric_ends_the_waiting():
  best = progress.Best()
  over = []
  for step, top1 in enumerate([0.1, 0.3, 0.2, 0.3, 0.3, 0.4], start=1):
    best.add(step, top1)
    over.append(best.is_over(3))
  assert over == [False, False, False, False, True, False]
  assert dataclasses.asdict(best) == {
    **{"step": 6, "value": 0.4, "waited": 0, "loss": 0.0}
  }
  assert not best.is_over(None)


def test_progress_survives_json():
  done = progress.Progress(
    step=7, useful_seconds=1 / 3, bad_images=2, best=progress.Best(4, 0.1, 1)
  )
  done.window.add(7, {"loss": np.float32(0.3), "grad_norm": np.float32(2)})
  done.window.flush()
  again = progress.Progress.from_json(json.loads(json.dumps(done.to_json())))
  assert again.to_json() == done.to_json()
  assert again.window.take() == done.window.take()


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(models.FAMILIES, "tiny", tiny.FAMILY)
  config = digits.get_config()
  config.model.name = "tiny"
  config.log_every_steps = 1
  config.plan.update(num_steps=12, base_batch=360)  # four steps an epoch
  config.eval.every_epochs = 1
  config.checkpoint.every_steps = 100
  # Nothing is learnt, so no evaluation is better than the first.
  config.optim.update(init_lr=0.0, peak_lr=0.0, final_lr=0.0)
  config.early_stop.patience = 1
  return config


def test_run_stops_early_and_stays_stopped(config, tmp_path, capsys):
  first = train.train_and_evaluate(config, tmp_path)
  said = capsys.readouterr().out
  assert "stopped early at step 8 of 12: 1 evaluations without" in said
  assert "steps=8" in said.splitlines()[-1]
  records = runs.records(tmp_path)
  assert max(record["step"] for record in records) == 8
  assert train.train_and_evaluate(config, tmp_path) == first
  assert "steps=8" in capsys.readouterr().out.splitlines()[-1]
  assert runs.records(tmp_path) == records


def test_weights_of_a_run_that_stops_early_are_its_best(config, tmp_path):
  config.early_stop.patience = 2
  config.optim.update(init_lr=0.02, peak_lr=0.02, final_lr=0.02)
  # A flood of decay: the net gets worse after its first evaluation.
  config.optim.weight_decay = 30.0
  train.train_and_evaluate(config, tmp_path)
  evaluations = {
    r["step"]: r["ema_top1"] for r in runs.records(tmp_path) if "ema_top1" in r
  }
  best = max(evaluations, key=lambda step: evaluations[step])
  assert best != max(evaluations)

  def read(which):
    return read_weights(tmp_path, which=which).tensors

  auto, best_weights, last = read("auto"), read("best"), read("ema")
  assert auto.keys() == last.keys()
  assert all(np.array_equal(auto[k], best_weights[k]) for k in auto)
  assert any(not np.array_equal(auto[k], last[k]) for k in auto)
  content = json.loads((tmp_path / "config.json").read_text())
  content["early_stop"]["patience"] = None
  (tmp_path / "config.json").write_text(json.dumps(content))
  assert all(np.array_equal(read("auto")[k], last[k]) for k in last)
