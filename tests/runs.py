"""What a run leaves, to compare it with another."""

from collections.abc import Iterator
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax.run import sharding

# What time decides, not the seed.
_TIMED = {
  "images_per_second",
  "steps_per_second",
  "data_wait_seconds",
  "step_seconds",
  "logging_seconds",
  "goodput",
}


def records(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """metrics.jsonl without what time decides."""
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [
    {k: v for k, v in json.loads(line).items() if k not in _TIMED}
    for line in lines
  ]


def losses(workdir: pathlib.Path) -> np.ndarray:
  """The loss of each step."""
  train = [r for r in records(workdir) if r["kind"] == "train"]
  assert [r["step"] for r in train] == list(range(1, len(train) + 1))
  return np.asarray([r["loss"] for r in train])


def arrays(workdir: pathlib.Path) -> dict[tuple[Any, ...], np.ndarray]:
  """Every array of the newest checkpoint, by path."""
  with ocp.CheckpointManager(workdir / "checkpoints") as manager:
    step = manager.latest_step()
    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    tree = manager.restore(step, args=args)["state"]
  flat: dict[tuple[Any, ...], np.ndarray] = {}

  def visit(path: tuple[Any, ...], node: Any) -> None:
    if isinstance(node, dict):
      for key, value in node.items():
        visit((*path, key), value)
    elif isinstance(node, list | tuple):
      for index, value in enumerate(node):
        visit((*path, index), value)
    elif node is not None:
      flat[path] = np.asarray(node)

  visit((), tree)
  return flat


def assert_same(workdir: pathlib.Path, reference: pathlib.Path) -> None:
  """Both runs' records and newest checkpoints are equal to the last bit."""
  assert records(workdir) == records(reference)
  actual, expected = arrays(workdir), arrays(reference)
  assert actual.keys() == expected.keys()
  for path, array in expected.items():
    np.testing.assert_array_equal(actual[path], array, err_msg=str(path))


def meters(config: Any) -> Iterator[tuple[str, Any]]:
  """The meter of `config.weights`, by batches of many sizes and by devices."""
  evaluation, _, start = experiment.build_evaluation(config)
  assert start is not None
  weights = steps.split(start()[0])[1:]
  for batch, devices in ((1, 1), (7, 1), (32, 1), (32, 4)):
    layout = sharding.Layout(jax.devices()[:devices])
    setup = dataclasses.replace(evaluation, batch=batch, layout=layout)
    evaluator = evaluate.Evaluator(setup)
    meter = setup.task.meter(setup.source)
    for rows, found in evaluator.rows({"net": layout.replicate(weights)}):
      real = rows.pop("batch_mask") > 0
      about = {name: value[real] for name, value in rows.items()}
      meter.add(about | found["net"])
    yield f"batches of {batch}, {devices} devices", meter
