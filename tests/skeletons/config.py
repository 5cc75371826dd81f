"""A run of a few steps of each skeleton; see `main`."""

import ml_collections

from tests import tiny_config


def get_config(name):
  """`masks`, `boxes` or `teacher`."""
  config = tiny_config.get_config()
  config.plan.update(sizes=(16, 32), base_size=32, base_batch=8, num_steps=20)
  config.data.name = name
  config.data.num_workers = 0
  config.eval.update(size=32, batch=4, every_epochs=2)
  config.optim.update(peak_lr=0.02, warmup_steps=2)
  config.checkpoint.every_steps = 5
  with config.unlocked():
    config.task = ml_collections.ConfigDict({"name": name})
    if name == "teacher":
      config.eval.every_epochs = 1
      config.plan.base_batch = 512
    else:
      config.model.head = name
      config.model.num_classes = {"masks": 2, "boxes": 1}[name]
      del config.model.classifier_dropout
      config.transform = ml_collections.ConfigDict()
  return config
