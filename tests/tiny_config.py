"""digits.py with a net that compiles in seconds, for many short commands.

The command runs a configuration's file, so the net is known there too.
"""

from typing import Any

from configs import digits
from mobilevit_jax import models
from tests import tiny

models.FAMILIES["tiny"] = tiny.FAMILY


def get_config() -> Any:
  """The configuration."""
  config = digits.get_config()
  config.model.name = "tiny"
  config.plan.num_steps = 30
  config.log_every_steps = 1
  return config
