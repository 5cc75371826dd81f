"""Exact evaluation: every image once, whatever the batch and the devices."""

from collections.abc import Callable
import contextlib
import functools
import math
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax import config as config_lib
from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.run import checkpoint
from mobilevit_jax.run import sharding

Metrics = dict[str, float]


class Evaluator:
  """Evaluates weights of one model on one source; compiles once.

  Attributes:
    size: image side, in pixels.
    batch: images at a time over all devices: the one asked for, enlarged to
      one that the devices divide. The last is padded, and masked.
    source: the images.
    num_images: in the source.
  """

  def __init__(
    self,
    source: sources.Source,
    *,
    model: Any,
    layout: sharding.Layout,
    size: int,
    batch: int,
    preset: str = "cvnets",
    resize_size: int | None = None,
    on_bad_image: str = "error",
    num_workers: int = 0,
  ):
    """Takes what `pipeline.eval_batches` takes, and a model for its shapes."""
    self.num_images = len(source)
    self.source = source
    self.size = size
    self.batch = math.ceil(batch / layout.num_devices) * layout.num_devices
    self._layout = layout
    self._graphdef, *self._shapes = steps.split(model)
    presets.check(preset, size, resize_size)
    self._batches = functools.partial(
      pipeline.eval_batches,
      source,
      size=size,
      batch=self.batch,
      preset=preset,
      resize_size=resize_size,
      on_bad_image=on_bad_image,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      num_workers=num_workers,
    )

    self._compiled: Callable[..., Any] | None = None

  def compile(self) -> Callable[..., Any]:
    """The evaluation step, compiled once for the one shape of batch."""
    if self._compiled is None:
      layout, b = self._layout, self.batch
      step = functools.partial(steps.eval_step, graphdef=self._graphdef)
      jitted = jax.jit(step, out_shardings=layout.replicated)
      self._compiled = jitted.lower(
        *layout.replicated_shapes(self._shapes),
        images=layout.batch_shape((b, self.size, self.size, 3), jnp.uint8),
        labels=layout.batch_shape((b,), jnp.int32),
        mask=layout.batch_shape((b,), jnp.float32),
      ).compile()
    return self._compiled

  def __call__(self, weights: dict[str, tuple[Any, Any]]) -> Metrics:
    """Metrics of one or more weights, reading the images once.

    Args:
      weights: a name, such as `"ema"`, to parameters and BatchNorm statistics.

    Returns:
      For each name `<name>_loss` in nats, `<name>_top1` and `<name>_top5` as
      parts of 1, the number of `images`, and of `bad_images` if there are any:
      broken ones are left out, where `on_bad_image` is "replace".

    Raises:
      ImageError: if every image is broken.
    """
    # Each batch's counts are exact in float32, and so is their sum here.
    step = self.compile()
    sums = {name: dict.fromkeys(_SUMS, 0.0) for name in weights}
    with contextlib.closing(self._batches()) as batches:
      for batch in batches:
        arrays = self._layout.put_batch(batch)
        outputs = {
          name: step(*pair, **arrays) for name, pair in weights.items()
        }
        for name, output in outputs.items():
          for key in _SUMS:
            sums[name][key] += float(np.asarray(output[key]))
    images = max(total["count"] for total in sums.values())
    if not images:
      raise examples.ImageError(
        f"all {self.num_images} images of {self.source.name} are broken"
      )
    metrics = {
      f"{name}_{key}": total[key] / total["count"]
      for name, total in sums.items()
      for key in ("loss", "top1", "top5")
    }
    bad_images = self.num_images - images
    counts = {"images": images} | (
      {"bad_images": bad_images} if bad_images else {}
    )
    return metrics | counts


_SUMS = ("loss", "top1", "top5", "count")


def make_evaluator(
  config: config_lib.Config, model: Any, layout: sharding.Layout
) -> Evaluator:
  """The evaluator that a configuration describes; checks its fields."""
  config_lib.check_positive(config, "eval.size", "eval.batch")
  source = experiment.open_source(config, config.data.eval_split)
  if source.num_classes > config.model.num_classes:
    raise config_lib.ConfigError(
      f"config.model.num_classes={config.model.num_classes} is fewer than the "
      f"{source.num_classes} classes of {source.name}"
    )
  with config_lib.section("eval"):
    return Evaluator(
      source,
      model=model,
      layout=layout,
      size=config.eval.size,
      batch=config.eval.batch,
      preset=config.eval.preset,
      resize_size=config.eval.resize_size,
      on_bad_image=config.data.on_bad_image,
      num_workers=config.data.num_workers,
    )


def weights_of(state: steps.TrainState) -> dict[str, tuple[Any, Any]]:
  """EMA and raw weights of a state."""
  return {
    "ema": (state.ema_params, state.ema_batch_stats),
    "raw": (state.params, state.batch_stats),
  }


def evaluate_workdir(
  config: config_lib.Config, workdir: epath.PathLike
) -> tuple[int, Metrics]:
  """Evaluates the EMA and raw weights of a run's newest checkpoint.

  Where there is no run yet, evaluates the weights that it would start from, if
  `config.weights.source` names some.

  Returns:
    The checkpoint's step, and the metrics of `Evaluator`.
  """
  config = config.copy_and_resolve_references()
  layout = sharding.Layout()
  source = experiment.open_source(config, config.data.eval_split)
  experiment.fill_num_classes(config, source)
  config_lib.check_model_unchanged(config, workdir)
  model = experiment.abstract_model(config, source)
  evaluator = make_evaluator(config, model, layout)
  if config.weights.source and not checkpoint.exists(workdir):
    start = experiment.initial_model(config, model)
    weights = layout.replicate(steps.split(start)[1:])
    return 0, evaluator({"weights": tuple(weights)})
  shapes = layout.replicated_shapes(steps.split(model)[1:])
  checkpoints = checkpoint.Checkpoints(workdir, create=False)
  with contextlib.closing(checkpoints):
    step, *ema = checkpoints.restore_weights(*shapes, which="ema")
    _, *raw = checkpoints.restore_weights(*shapes, which="raw")
  return step, evaluator({"ema": tuple(ema), "raw": tuple(raw)})


def summary(metrics: Metrics, step: int) -> str:
  """The line that ends a run."""
  parts = []
  for name, keys in _REPORTED.items():
    if f"{name}_top1" in metrics:
      values = [f"{key}={metrics[f'{name}_{key}']:.4f}" for key in keys]
      parts += [*values, f"({name})"]
  parts += [
    f"{name}={metrics[name]:.0f}"
    for name in ("images", "bad_images")
    if name in metrics
  ]
  return f"final: {' '.join(parts)} steps={step}"


_REPORTED = {
  "ema": ("top1", "top5"),
  "raw": ("top1",),
  "weights": ("top1", "top5"),
}
