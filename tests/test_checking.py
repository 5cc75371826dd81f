"""The data's check as training makes it: `config.data.check`."""

import cv2
import numpy as np
import pytest

from configs import finetune
from mobilevit_jax import experiment
from mobilevit_jax import models
from mobilevit_jax import train
from mobilevit_jax.config import ConfigError
from tests import tiny


@pytest.fixture
def config(monkeypatch, tmp_path):
  """Of a folder with three and two images of two classes to train on."""
  monkeypatch.setitem(models.FAMILIES, "tiny", tiny.FAMILY)
  rng = np.random.default_rng(0)
  photos = tmp_path / "photos"
  for folder, count in {
    "train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1,
  }.items():  # fmt: skip
    (photos / folder).mkdir(parents=True)
    for number in range(count):
      pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
      cv2.imwrite(str(photos / folder / f"{number}.png"), pixels)
  config = finetune.get_config("xxs,scratch,96")
  config.model.name = "tiny"
  config.data.dir = str(photos)
  config.plan.update(sizes=(96,), base_batch=8)
  return config


def _check(config):
  return experiment.build(config).check_data()


def test_says_what_it_found(config):
  report = _check(config)
  lines = report.lines()
  assert report.classes == (("cat", (3, 1)), ("dog", (2, 1)))
  assert any(line.split() == ["cat", "3", "1", "60.0%"] for line in lines)
  # The size is the run's own.
  assert lines[-1].startswith("warning: 7 of 7 images with a side under half")
  assert "96 px" in lines[-1]


def test_few_shot_may_want_one_image_of_a_class(config):
  config.data.few_shot = 1
  report = _check(config)
  assert report.images == (5, 2)


def test_refuses_before_anything_is_written(config, tmp_path):
  (tmp_path / "photos/train/dog/0.png").write_bytes(b"broken")
  with pytest.raises(ConfigError) as caught:
    train.train_and_evaluate(config, tmp_path / "run")
  message = str(caught.value)
  assert message.startswith("config.data: this data can't be trained on: ")
  assert "(dog)" in message and "0.png" in message and "\n" not in message
  assert not (tmp_path / "run").exists()


def test_the_same_split_for_both_is_refused(config):
  config.data.eval_split = "train"
  assert "is also in train" in _check(config).refusal()
