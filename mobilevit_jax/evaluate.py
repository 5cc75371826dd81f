"""Exact evaluation: every image once, whatever the batch and the devices."""

from collections.abc import Callable, Generator, Mapping
import contextlib
import functools
import math
from typing import Any

from etils import epath
import jax
import numpy as np

from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax.config import changes_since
from mobilevit_jax.config import Config
from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import transforms
from mobilevit_jax.run import checkpoint
from mobilevit_jax.run import distributed
from mobilevit_jax.tasks.task import Rows
from mobilevit_jax.tasks.task import Task

Metrics = dict[str, float]
Weights = tuple[Any, Any]  # parameters and BatchNorm statistics of a net


class Evaluator:
  """Runs weights of one net over one source; compiles once for each shape.

  Attributes:
    setup: what it was made of.
    batch: images at a time over all devices: the one asked for, enlarged to
      one that the devices divide. The last is padded, and masked.
    num_images: in the source.
  """

  def __init__(self, setup: experiment.Evaluation):
    devices = setup.layout.num_devices
    self.setup = setup
    # Up to a multiple of the devices; masks make padding harmless.
    self.batch = math.ceil(setup.batch / devices) * devices
    self.num_images = len(setup.source)
    self._compiled: dict[
      transforms.Size, Callable[..., dict[str, jax.Array]]
    ] = {}

  @functools.cached_property
  # Cached: reading all images' sizes may take minutes.
  def plan(self) -> list[pipeline.EvalBatch]:
    """The batches, in order."""
    setup = self.setup
    return pipeline.eval_plan(
      setup.source, setup.transform, size=setup.size, batch=self.batch
    )

  def compile(
    self, size: transforms.Size | None = None
  ) -> Callable[..., dict[str, jax.Array]]:
    """The evaluation step for images of a size, by default the first one."""
    size = self.plan[0].size if size is None else size
    if size not in self._compiled:
      setup, layout = self.setup, self.setup.layout
      # The model gives its structure alone; weights are arguments, so that EMA
      # and raw weights share one program.
      graphdef, *shapes = steps.split(setup.model)
      step = functools.partial(
        steps.eval_step, graphdef=graphdef, task=setup.task
      )
      spec = pipeline.batch_spec(setup.transform, size, train=False)
      # Rows stay where their images are: each process reads its own.
      jitted = jax.jit(step, out_shardings=layout.batch)
      # Compiled ahead: a shape that was not planned for is an error, not a
      # silent recompilation.
      arguments = layout.replicated_shapes(shapes)
      batch = layout.batch_shapes(spec, self.batch)
      self._compiled[size] = distributed.together(
        lambda: jitted.lower(*arguments, batch=batch).compile()
      )
    return self._compiled[size]

  def rows(
    self, weights: Mapping[str, Weights]
  ) -> Generator[tuple[dict[str, np.ndarray], dict[str, Rows]]]:
    """One forward pass over the source, with one or more weights.

    This is the only one: evaluation, the report, prediction and export's
    accuracy all read it.

    Args:
      weights: a name, such as `"ema"`, to parameters and BatchNorm statistics.

    Yields:
      For each batch the rows that this process loaded: what the batch says of
      them, padding included (see `pipeline.batch_spec`), and by name of the
      weights the task's outputs, without padding and broken images.
    """
    # Each process loads its own rows of every batch.
    setup = self.setup
    batches = pipeline.eval_batches(
      setup.source,
      setup.transform,
      size=setup.size,
      batch=self.batch,
      plan=self.plan,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      **setup.loading,
    )
    with contextlib.closing(batches):
      for planned, batch in zip(self.plan, batches, strict=True):
        step = self.compile(planned.size)
        arrays = setup.layout.put_batch(batch)
        # All are under way before the first is waited for.
        results = {
          name: step(*pair, batch=arrays) for name, pair in weights.items()
        }
        real = np.flatnonzero(batch["batch_mask"])
        found = {}
        for name, outputs in results.items():
          # Rows of this process, without padding and broken images.
          rows = setup.layout.own_rows(outputs)
          found[name] = {key: value[real] for key, value in rows.items()}
        yield batch, found

  def __call__(self, weights: Mapping[str, Weights]) -> Metrics:
    """Metrics of one or more weights, reading the images once.

    Args:
      weights: see `rows`.

    Returns:
      For each name the task's metrics as `<name>_<metric>`, the number of
      `images`, and of `bad_images` if there are any: broken ones are left out,
      where `on_bad_image` is "replace".

    Raises:
      ImageError: if every image is broken.
    """
    setup, seen = self.setup, 0
    # A meter for each set of weights; the images are read once.
    meters = {name: setup.task.meter(setup.source) for name in weights}
    with contextlib.closing(self.rows(weights)) as rows:
      for batch, outputs in rows:
        # Images have done their part; the meter gets all else.
        real = batch.pop("batch_mask") > 0
        seen += int(real.sum())
        about = {k: v[real] for k, v in batch.items() if k != "images"}
        for name, found in outputs.items():
          meters[name].add({**about, **found})
    # All processes together.
    images = int(distributed.gather(np.array([seen])).sum())
    if not images:
      raise examples.ImageError(
        f"all {self.num_images} images of {setup.source.name} are broken"
      )
    metrics: Metrics = {}
    for name, meter in meters.items():
      # Collective: every process calls it, in the same order.
      meter.merge(distributed.gather)
      metrics |= {f"{name}_{k}": v for k, v in meter.result().items()}
    bad_images = self.num_images - images
    counts = {"bad_images": bad_images} if bad_images else {}
    return metrics | {"images": images} | counts


def weights_of(state: steps.TrainState) -> dict[str, Weights]:
  """EMA and raw weights of a state."""
  return {
    "ema": (state.ema_params["net"], state.ema_batch_stats),
    "raw": (state.params["net"], state.batch_stats),
  }


def evaluate_workdir(config: Config, workdir: epath.PathLike) -> str:
  """Evaluates the EMA and raw weights of a run's newest checkpoint.

  Where there is no run yet, evaluates the weights that it would start from, if
  `config.weights.source` names some.

  Returns:
    The line that `summary` makes of the metrics.
  """
  setup, record, start = experiment.build_evaluation(config)
  changes_since(record, workdir)  # it refuses another model
  # The weights that a run would start from: no run is needed to judge them.
  evaluator = Evaluator(setup)
  if start is not None and not checkpoint.exists(workdir):
    params, stats = setup.layout.replicate(steps.split(start()[0])[1:])
    return summary(setup.task, evaluator({"weights": (params, stats)}), 0)
  shapes = setup.layout.replicated_shapes(steps.split(setup.model)[1:])
  checkpoints = checkpoint.Checkpoints(workdir, create=False)
  with contextlib.closing(checkpoints):
    step, *ema = checkpoints.restore_weights(*shapes, which="ema")
    _, *raw = checkpoints.restore_weights(*shapes, which="raw")
  metrics = evaluator({"ema": tuple(ema), "raw": tuple(raw)})
  return summary(setup.task, metrics, step)


def summary(task: Task, metrics: Metrics, step: int) -> str:
  """The line that ends a run: of the raw weights the best metric alone."""
  parts = []
  for name in ("ema", "raw", "weights"):
    shown = (task.best,) if name == "raw" else task.shown
    values = [
      f"{key}={metrics[f'{name}_{key}']:.4f}"
      for key in shown
      if f"{name}_{key}" in metrics
    ]
    parts += [*values, f"({name})"] if values else []
  parts += [
    f"{name}={metrics[name]:.0f}"
    for name in ("images", "bad_images")
    if name in metrics
  ]
  return f"final: {' '.join(parts)} steps={step}"
