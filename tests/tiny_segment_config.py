"""segment.py's `folder` with a net that compiles in seconds."""

from typing import Any

from configs import segment
from mobilevit_jax import models
from tests import tiny

models.FAMILIES["tiny"] = tiny.FAMILY


def get_config(protocol: str = "stretch") -> Any:
  """The configuration; set `config.data.dir`."""
  config = segment.get_config("xxs,folder,32")
  config.model.update(name="tiny", aspp_width=8)
  config.plan.update(sizes=(32,), base_batch=4, batch_multiple=1, num_steps=20)
  config.optim.update(lr_batch=4, warmup_epochs=0.5, peak_lr=1e-2)
  config.eval.update(size=32, batch=4, every_epochs=2)
  config.task.update(protocol=protocol, window=32, class_weights="frequency")
  config.checkpoint.every_steps = 5
  config.log_every_steps = 1
  config.weights.reset = "none"
  return config
