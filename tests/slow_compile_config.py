"""tiny_config.py, where process 1 takes 35 s longer to compile.

JAX waits 30 s for a process that comes late.
"""

import time
from typing import Any

import jax

from tests import tiny_config

get_config = tiny_config.get_config
_compile = jax.stages.Lowered.compile


def _slowly(self: jax.stages.Lowered, *args: Any, **kwargs: Any) -> Any:
  if jax.process_index() == 1 and "train_step" in self.as_text()[:200]:
    time.sleep(35)
  return _compile(self, *args, **kwargs)


jax.stages.Lowered.compile = _slowly
