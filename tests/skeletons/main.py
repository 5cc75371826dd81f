"""The real command, with the skeletons' rows in the tables that tasks have.

python -m tests.skeletons.main --config=tests/skeletons/config.py:masks ...
"""

import runpy

from mobilevit_jax import experiment
from mobilevit_jax import models
from mobilevit_jax.data import sources
from tests import tiny
from tests.skeletons import boxes
from tests.skeletons import masks
from tests.skeletons import teacher

SKELETONS = {"masks": masks, "boxes": boxes, "teacher": teacher}


def register():
  """Three rows for each, as a new task has them."""
  models.FAMILIES["tiny"] = tiny.FAMILY
  for name, skeleton in SKELETONS.items():
    head = name if skeleton.Head else "classifier"
    if skeleton.Head:
      models.HEADS[name] = skeleton.Head
    sources.SOURCES[name] = skeleton.Source
    experiment.TASKS[name] = experiment.TaskKind(
      skeleton.make, skeleton.Transform, (head,)
    )


if __name__ == "__main__":
  register()
  runpy.run_module("mobilevit_jax.main", run_name="__main__")
