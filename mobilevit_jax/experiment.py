"""From a configuration to the objects that it describes, checked.

Nothing here compiles or writes: what is wrong with a configuration is said
before any time is spent on it.
"""

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import optax

from mobilevit_jax import config as config_lib
from mobilevit_jax import models
from mobilevit_jax import optim
from mobilevit_jax import steps
from mobilevit_jax import summary
from mobilevit_jax import weights
from mobilevit_jax.data import bad_images
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import plan as plan_lib
from mobilevit_jax.data import sources
from mobilevit_jax.run import sharding
from mobilevit_jax.tasks import losses
from mobilevit_jax.tasks import mix as mix_lib

_SCHEDULE_FIELDS = (
  "init_lr",
  "peak_lr",
  "final_lr",
  "warmup_steps",
  "cosine_unit",
)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a training run is made of."""

  source: sources.Source
  plan: plan_lib.BatchPlan
  augmentation: pipeline.Augmentation
  layout: sharding.Layout
  model: nnx.Module  # abstract: shapes in place of weights
  recipe: steps.Recipe


def build(config: config_lib.Config) -> Experiment:
  """Checks the whole training configuration and opens its data.

  Args:
    config: gets the number of classes, where it says None; see
      `fill_num_classes`.

  Raises:
    config_lib.ConfigError: naming the field, its value and what is allowed.
  """
  config_lib.check_positive(
    config,
    "log_every_steps",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "eval.every_epochs",
    "optim.accum_steps",
    "profile.num_steps",
    *["early_stop.patience"] * (config.early_stop.patience is not None),
  )
  layout = sharding.Layout()
  source = open_source(config, config.data.train_split)
  if config.data.few_shot is not None:
    with config_lib.section("data"):
      source = sources.few_shot(source, config.data.few_shot, seed=config.seed)
  fill_num_classes(config, source)
  model = abstract_model(config, source)
  with config_lib.section("data"):
    augmentation = pipeline.Augmentation(
      **{
        field.name: config.data[field.name]
        for field in dataclasses.fields(pipeline.Augmentation)
      }
    )
    mix = mix_lib.Mix(config.data.mixup, config.data.cutmix)
  with config_lib.section("plan"):
    fields = config.plan.to_dict()
    if fields["num_steps"] is not None:
      fields["num_epochs"] = None  # steps, where given, replace the epochs
    plan = plan_lib.BatchPlan(len(source), seed=config.seed, **fields)
    plan.check_devices(layout.num_devices)
  _check_batches(config, plan, layout)
  with config_lib.section("optim"):
    recipe = make_recipe(config, plan, source, model)
    if mix != mix_lib.Mix():
      recipe = dataclasses.replace(recipe, mix=mix)
  return Experiment(source, plan, augmentation, layout, model, recipe)


def open_source(config: config_lib.Config, split: str) -> sources.Source:
  """A split of the configured data; process 0 prepares it if need be."""
  with config_lib.section("data"):
    bad_images.check_policy(config.data.on_bad_image)
    return sources.make_source(
      config.data.name,
      split,
      data_dir=config.data.dir,
      prepare=jax.process_index() == 0,
    )


def fill_num_classes(config: config_lib.Config, source: sources.Source) -> None:
  """Sets `config.model.num_classes` to the data's, where it is None."""
  if config.model.num_classes is None:
    config.model.num_classes = source.num_classes


def abstract_model(
  config: config_lib.Config, source: sources.Source
) -> nnx.Module:
  """The configured model without weights, with the data's classes."""
  with config_lib.section("model"):
    fields = config.model.to_dict()
    if fields["num_classes"] < source.num_classes:
      raise ValueError(
        f"num_classes={fields['num_classes']} is fewer than the "
        f"{source.num_classes} classes of {source.name}"
      )
    return models.abstract_model(**fields)


def make_recipe(
  config: config_lib.Config,
  plan: plan_lib.BatchPlan,
  source: sources.Source,
  model: Any,
) -> steps.Recipe:
  """Optimiser, schedule, loss and EMA."""
  fields = config.optim.to_dict()
  schedule = _make_schedule(
    plan,
    base_batch=config.plan.base_batch * config.plan.groups,
    reference=fields.pop("lr_batch"),
    warmup_epochs=fields.pop("warmup_epochs"),
    **{name: fields.pop(name) for name in _SCHEDULE_FIELDS},
  )
  rates = {
    "layer_decay": fields.pop("layer_decay"),
    "freeze": fields.pop("freeze"),
  }
  weights = _class_weights(
    fields.pop("class_weights"), source, config.model.num_classes
  )
  ema_momentum = functools.partial(optim.ema_momentum, **fields.pop("ema"))
  ema_momentum(0)  # it checks its arguments
  accum_steps = fields.pop("accum_steps")
  label_smoothing = fields.pop("label_smoothing")
  if not 0 <= label_smoothing < 1:
    raise ValueError(
      f"label_smoothing={label_smoothing} must be at least 0 and below 1"
    )
  optimizer = optim.adamw(schedule, **fields)
  if rates != {"layer_decay": 1.0, "freeze": "none"}:
    shares = optim.layer_rates(model.LAYERS, **rates)
    optimizer = optax.chain(optimizer, optim.scale_updates(shares))
  return steps.Recipe(
    optimizer=optimizer,
    schedule=schedule,
    ema_momentum=ema_momentum,
    seed=config.seed,
    label_smoothing=label_smoothing,
    class_weights=weights,
    freeze_backbone=rates["freeze"] == "backbone",
    accum_steps=accum_steps,
  )


def _make_schedule(
  plan: plan_lib.BatchPlan,
  *,
  base_batch: int,
  reference: int | None,
  warmup_epochs: float | None,
  **fields: Any,
) -> optax.Schedule:
  for name in ("init_lr", "peak_lr", "final_lr"):
    fields[name] = optim.scale_rate(
      fields[name], batch=base_batch, reference=reference
    )
  if warmup_epochs is not None:
    if warmup_epochs < 0:
      raise ValueError(f"warmup_epochs={warmup_epochs} must not be negative")
    share = min(warmup_epochs / plan.num_epochs, 1)
    fields["warmup_steps"] = round(share * plan.num_steps)
  return optim.warmup_cosine(
    epoch_starts=plan.epoch_starts, num_steps=plan.num_steps, **fields
  )


def _class_weights(
  kind: str, source: sources.Source, num_classes: int
) -> tuple[float, ...] | None:
  if kind not in ("none", "balanced"):
    raise ValueError(f"class_weights={kind!r} must be 'none' or 'balanced'")
  if kind == "none":
    return None
  return losses.balanced_weights(source.labels(), num_classes)


def _check_batches(
  config: config_lib.Config,
  plan: plan_lib.BatchPlan,
  layout: sharding.Layout,
) -> None:
  """Every batch must split evenly into micro-batches and BatchNorm groups."""
  accum_steps, bn_groups = config.optim.accum_steps, config.model.bn_groups
  for size, batch in plan.shapes:
    if batch % (accum_steps * layout.num_devices):
      raise config_lib.ConfigError(
        f"config.optim.accum_steps={accum_steps} on {layout.num_devices} "
        f"device(s) does not divide the batch of {batch} at {size} px; set "
        "config.plan.batch_multiple to a multiple of their product"
      )
    if batch // accum_steps % bn_groups:
      raise config_lib.ConfigError(
        f"config.model.bn_groups={bn_groups} does not divide the batch of "
        f"{batch // accum_steps} images at {size} px"
      )


def initial_model(config: config_lib.Config, model: nnx.Module) -> nnx.Module:
  """The abstract model with weights, from the seed or `config.weights`.

  Raises:
    config_lib.ConfigError: if the weights can't be read or don't fit.
  """
  model = models.initialize(model, config.seed)
  fields = config.weights.to_dict()
  if fields["source"] is None:
    return model
  with config_lib.section("weights"):
    return weights.load_weights(model, **fields)


def initial_state(
  model: nnx.Module, recipe: steps.Recipe, layout: sharding.Layout
) -> steps.TrainState:
  """The state before the first step, on all devices, of a model's weights."""
  make = jax.jit(
    functools.partial(steps.init_state, optimizer=recipe.optimizer),
    out_shardings=layout.replicated,
  )
  return make(*layout.replicate(steps.split(model)[1:]))


def state_shapes(
  model: nnx.Module, recipe: steps.Recipe, layout: sharding.Layout
) -> Any:
  """Shapes and shardings of the state, to restore and compile with."""
  make = functools.partial(steps.init_state, optimizer=recipe.optimizer)
  return layout.replicated_shapes(jax.eval_shape(make, *steps.split(model)[1:]))


def costs(
  run: Experiment, config: config_lib.Config
) -> tuple[dict[int, int], float | None]:
  """What utilisation is reckoned with.

  Returns:
    Multiply-adds of an image by its size, and the FLOP/s of all devices; none
    where the devices' peak is not known.
  """
  kind = jax.devices()[0].device_kind
  peak = summary.peak_flops(kind, config.model.dtype)
  if peak is None:
    return {}, None
  macs = {
    size: summary.forward_macs(
      height=size, width=size, **config.model.to_dict()
    )
    for size, _ in run.plan.shapes
  }
  return macs, peak * run.layout.num_devices
