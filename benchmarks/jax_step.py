"""The trainer's own step, compiled for one shape and fed the same batch."""

from collections.abc import Mapping
import functools
import resource
import time
from typing import Any

import jax
import numpy as np

from mobilevit_jax import experiment
from mobilevit_jax import models
from mobilevit_jax import optim
from mobilevit_jax import steps
from mobilevit_jax.run import sharding
from mobilevit_jax.tasks.task import Task


class JaxStep:
  """`steps.train_step` as `train.py` compiles and shards it.

  Args:
    name: of the model, such as `"mobilevit_s"`.
    batch: the global batch, as the task's transform gives it.
    task: whose loss it is.
    optimizer: keyword arguments of `optim.adamw`, and `lr`.
    ema_momentum: share of the new weights in their average.
    fields: of the model, for `models.create_model`.
  """

  def __init__(
    self,
    name: str,
    batch: Mapping[str, np.ndarray],
    *,
    task: Task,
    optimizer: dict[str, Any],
    ema_momentum: float,
    fields: dict[str, Any],
  ):
    layout = sharding.Layout()
    model = models.create_model(name, **fields)
    rest = {key: value for key, value in optimizer.items() if key != "lr"}
    # A constant rate: the schedule is traced as in training, and costs the
    # same.
    schedule = optim.warmup_cosine(
      epoch_starts=[0],
      num_steps=10**6,
      init_lr=optimizer["lr"],
      peak_lr=optimizer["lr"],
      final_lr=optimizer["lr"],
    )
    recipe = steps.Recipe(
      optimizer=optim.adamw(schedule, **rest),
      schedule=schedule,
      ema_momentum=functools.partial(optim.ema_momentum, momentum=ema_momentum),
    )
    self._state = experiment.initial_state(model, task, recipe, layout)
    self._batch = layout.put_batch(dict(batch))
    step = functools.partial(
      # As `train.train_and_evaluate` compiles it: state donated, results
      # everywhere.
      steps.train_step,
      frozen={},
      graphdef=steps.split(model)[0],
      recipe=recipe,
      task=task,
    )
    jitted = jax.jit(
      step,
      donate_argnums=0,
      out_shardings=(layout.replicated, layout.replicated),
    )
    begin = time.monotonic()
    # Tracing is Python's time, compiling XLA's; they are told apart.
    lowered = jitted.lower(self._state, self._batch)
    self.trace_seconds = time.monotonic() - begin
    self.compiled = lowered.compile()
    self.compile_seconds = time.monotonic() - begin
    # The first run allocates, and belongs to no round.
    self.run(1)
    self.first_loss = self.loss

  def run(self, steps: int) -> None:
    """Makes `steps` updates and waits for the last."""
    for _ in range(steps):
      self._state, metrics = self.compiled(self._state, self._batch)
    # One wait for all: the steps queue up as in training.
    jax.block_until_ready(self._state)
    self.loss = float(metrics["loss"])
    if not np.isfinite(self.loss):
      raise FloatingPointError("JAX's loss is not finite")

  def memory(self) -> dict[str, Any]:
    """Bytes: XLA's plan of the step, the device's allocator, this process."""
    found: dict[str, Any] = {}
    plan = self.compiled.memory_analysis()
    if plan is not None:  # a backend may not say
      found["xla_temp_bytes"] = plan.temp_size_in_bytes
      found["xla_argument_bytes"] = plan.argument_size_in_bytes
      found["xla_output_bytes"] = plan.output_size_in_bytes
      found["xla_aliased_bytes"] = plan.alias_size_in_bytes
    stats = jax.local_devices()[0].memory_stats() or {}  # None on CPU
    found["allocator_peak_bytes"] = stats.get("peak_bytes_in_use")
    # Linux counts it in KiB.
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["process_peak_bytes"] = peak_rss
    return found

  def xla_flops(self) -> float | None:
    """Operations of the compiled step by XLA's count, on one device."""
    cost = self.compiled.cost_analysis() or {}
    return cost.get("flops")


def random_batch(
  size: int, batch: int, num_classes: int
) -> dict[str, np.ndarray]:
  """`images` uint8 `[b, h, w, 3]`, `labels` int32 `[b]`; always the same."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
  labels = rng.integers(0, num_classes, (batch,)).astype(np.int32)
  return {"images": images, "labels": labels}


def random_boxes(
  size: int, batch: int, num_classes: int
) -> dict[str, np.ndarray]:
  """Images with seven boxes each, COCO's mean, of 100 places, as in training.

  Returns:
    As `DetectTransform.spec` says; always the same.
  """
  rng = np.random.default_rng(0)
  places, there = 100, 7
  corner = rng.uniform(0, 0.6, (batch, places, 2))
  sides = rng.uniform(0.05, 0.4, (batch, places, 2))
  valid = np.broadcast_to(np.arange(places) < there, (batch, places))
  classes = rng.integers(0, num_classes, (batch, places))
  return {
    "images": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
    "boxes": np.concatenate([corner, corner + sides], -1).astype(np.float32),
    "classes": classes.astype(np.int32),
    "valid": valid.astype(np.float32),
  }
