"""From a configuration to the objects that it describes, checked.

Nobody else holds a configuration. Nothing here compiles or writes: what is
wrong with a configuration is said before any time is spent on it.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import optax

from mobilevit_jax import models
from mobilevit_jax import optim
from mobilevit_jax import ranges
from mobilevit_jax import steps
from mobilevit_jax import summary
from mobilevit_jax import weights
from mobilevit_jax.config import Config
from mobilevit_jax.config import ConfigError
from mobilevit_jax.config import flat_fields
from mobilevit_jax.config import Record
from mobilevit_jax.config import section
from mobilevit_jax.config import to_record
from mobilevit_jax.data import bad_images
from mobilevit_jax.data import check
from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
from mobilevit_jax.data import transforms
from mobilevit_jax.data.plan import BatchPlan
from mobilevit_jax.data.transforms import classify as classify_transform
from mobilevit_jax.data.transforms import detect as detect_transform
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.data.transforms import segment as segment_transform
from mobilevit_jax.run import sharding
from mobilevit_jax.tasks import classify
from mobilevit_jax.tasks import detect
from mobilevit_jax.tasks import segment
from mobilevit_jax.tasks.task import Task

# Gives the net with its first weights, and says where they are from.
Start = Callable[[], tuple[models.Net, str]]
_RATES = ("init_lr", "peak_lr", "final_lr")
_SCHEDULE_FIELDS = (*_RATES, "warmup_steps", "cosine_unit")


@dataclasses.dataclass(frozen=True)
class TaskKind:
  """One row of `TASKS`.

  Attributes:
    make: the task, of the training source, a class count and `config.task`.
    transform: from the fields of `config.transform` to the transform.
    heads: names of the heads, in `models.HEADS`, that the task can train.
    view: fields of the transform for weights of a crop; `size`: their pixels.
    kept: of `config.task` and `config.transform`, the fields that predictions
      of a run take over from it.
  """

  make: Callable[..., Task]
  transform: Callable[..., transforms.Transform]
  heads: tuple[str, ...]
  view: Callable[[presets.Crop], dict[str, Any]] = presets.Crop.fields
  size: int = 256
  kept: tuple[str, ...] = ()


TASKS: dict[str, TaskKind] = {
  "classify": TaskKind(
    classify.make, classify_transform.ClassifyTransform, ("classifier",)
  ),
  "detect": TaskKind(
    detect.make,
    detect_transform.DetectTransform,
    ("ssdlite",),
    view=lambda crop: {},
    size=320,
    kept=("threshold", "per_class", "nms_iou", "most"),
  ),
  "segment": TaskKind(
    segment.make,
    segment_transform.SegmentTransform,
    ("deeplabv3",),
    view=lambda crop: {},
    size=512,
    kept=("protocol", "multiple", "window", "overlap"),
  ),
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What weights of one net are evaluated with.

  Attributes:
    task: whose outputs and meter they are.
    transform: of the images.
    source: the images.
    model: abstract: shapes in place of weights.
    layout: the devices.
    size: image side, in pixels.
    batch: images at a time over all devices, at least; see `Evaluator`.
    loading: further arguments of `pipeline.eval_batches`.
  """

  task: Task
  transform: transforms.Transform
  source: examples.Source
  model: models.Net
  layout: sharding.Layout
  size: int
  batch: int
  loading: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Cadence:
  """When a run does what, in steps done.

  Attributes:
    log_every: steps between log lines.
    checkpoint_every: steps between checkpoints.
    keep: the last checkpoints that stay.
    evaluate_after: the steps that an evaluation follows.
    patience: evaluations without a better one after which a run ends; None
      for never.
  """

  log_every: int
  checkpoint_every: int
  keep: int
  evaluate_after: frozenset[int]
  patience: int | None

  def logs(self, step: int, num_steps: int) -> bool:
    """Whether a log line follows; the last one takes a short rest along."""
    whole = step % self.log_every == 0
    return step == num_steps or (whole and num_steps - step >= self.log_every)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a training run is made of.

  Attributes:
    record: the configuration, as the run's folder remembers it.
    evaluation: of the run's weights.
    source: the images to train on.
    plan: which of them make up which step.
    recipe: how weights are updated.
    cadence: when to log, save and evaluate.
    loading: further arguments of `pipeline.train_batches`.
    checked: the splits to check before training, by name; none for no check.
    initial_model: the net with the weights to start from; and what these are.
    profile: arguments of `clock.Trace`.
  """

  record: Record
  evaluation: Evaluation
  source: examples.Source
  plan: BatchPlan
  recipe: steps.Recipe
  cadence: Cadence
  loading: dict[str, Any]
  checked: dict[str, examples.Source]
  initial_model: Start
  profile: dict[str, Any]

  @property
  def task(self) -> Task:
    """What is trained for."""
    return self.evaluation.task

  @property
  def layout(self) -> sharding.Layout:
    """The devices."""
    return self.evaluation.layout

  @property
  def model(self) -> models.Net:
    """The net, abstract."""
    return self.evaluation.model

  def batches(self, start_step: int) -> pipeline.BatchIterator:
    """This process's part of the plan's batches, from a step on."""
    return pipeline.train_batches(
      self.plan,
      self.source,
      self.evaluation.transform,
      start_step=start_step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      **self.loading,
    )

  def check_data(self) -> check.Report:
    """Reads every image of the splits to check."""
    return check.check_splits(
      self.checked,
      size=min(size for size, _ in self.plan.shapes),
      fits=getattr(self.task, "fits", None),
      on_bad_image=self.loading["on_bad_image"],
      progress=True,
      max_pixels=self.evaluation.transform.max_pixels,
    )

  def costs(self) -> tuple[dict[int, int], float | None]:
    """What utilisation is reckoned with.

    Returns:
      Multiply-adds of an image by its size, and the FLOP/s of all devices;
      none where the devices' peak is not known.
    """
    fields = self.record["model"]
    peak = summary.peak_flops(jax.devices()[0].device_kind, fields["dtype"])
    if peak is None:
      return {}, None
    macs = {
      size: summary.forward_macs(height=size, width=size, **fields)
      for size, _ in self.plan.shapes
    }
    return macs, peak * self.layout.num_devices


def build(config: Config) -> Experiment:
  """Checks the whole training configuration and opens its data.

  Raises:
    ConfigError: naming the field, its value and what is allowed.
  """
  config = _checked(config)
  whole = source = _open_source(config, config.data.train_split)
  if config.data.few_shot is not None:
    with section("data"):
      source = sources.few_shot(source, config.data.few_shot, seed=config.seed)
  evaluation = _evaluation(config, source)
  with section("plan"):
    fields = config.plan.to_dict()
    if fields["num_steps"] is not None:
      fields["num_epochs"] = None  # steps, where given, replace the epochs
    plan = BatchPlan(len(source), seed=config.seed, **fields)
    plan.check_devices(evaluation.layout.num_devices)
    for size, _ in plan.shapes:
      evaluation.transform.spec(size, train=True)
  _check_batches(config, plan, evaluation.layout)
  with section("optim"):
    recipe = make_recipe(config, plan, evaluation.model)
  held_out = config.data.eval_split
  if held_out == config.data.train_split:
    held_out = f"{held_out} (evaluation)"
  splits = {config.data.train_split: whole, held_out: evaluation.source}
  return Experiment(
    record=to_record(config),
    evaluation=evaluation,
    source=source,
    plan=plan,
    recipe=recipe,
    cadence=Cadence(
      # At least a line an epoch: small sets have few steps.
      log_every=min(config.log_every_steps, plan.shortest_epoch),
      checkpoint_every=config.checkpoint.every_steps,
      keep=config.checkpoint.keep,
      evaluate_after=evaluation_steps(plan, config.eval.every_epochs),
      patience=config.early_stop.patience,
    ),
    loading={
      "seed": config.seed,
      "on_bad_image": config.data.on_bad_image,
      "num_workers": config.data.num_workers,
      "prefetch_batches": config.data.prefetch_batches,
    },
    checked=splits if config.data.check else {},
    initial_model=_initial_model(config, evaluation.model),
    profile=config.profile.to_dict(),
  )


def _checked(config: Config) -> Config:
  """A copy to work with, whose fields are what each of them may be."""
  config = config.copy_and_resolve_references()
  ranges.check(flat_fields(config.to_dict()), TASKS)
  return config


def task_of(head: str) -> str:
  """The first task that trains a head, by its name in `models.HEADS`."""
  return next(name for name, kind in TASKS.items() if head in kind.heads)


def build_evaluation(
  config: Config, *, prepare: bool = True
) -> tuple[Evaluation, Record, Start | None]:
  """What is needed to evaluate alone: no plan, no images to train on.

  Args:
    config: the configuration.
    prepare: whether to download and prepare a TFDS set that isn't there yet.

  Returns:
    The evaluation; the configuration as a run's folder remembers it; and the
    net with the weights of `config.weights` and their name, if it has one.
  """
  config = _checked(config)
  evaluation = _evaluation(config, None, prepare)
  start = None
  if config.weights.source is not None:
    start = _initial_model(config, evaluation.model)
  return evaluation, to_record(config), start


def _evaluation(
  config: Config,
  source: examples.Source | None,
  prepare: bool = True,
) -> Evaluation:
  """The evaluation's part; fills `config.model.num_classes` where it is None.

  Args:
    config: the configuration.
    source: the images to train on, if there are any.
    prepare: see `build_evaluation`.
  """
  held_out = _open_source(config, config.data.eval_split, prepare)
  source = source or held_out
  if config.model.num_classes is None:
    config.model.num_classes = len(source.class_names)
  fields = config.task.to_dict()
  kind = TASKS[name := fields.pop("name")]
  with section("model"):
    model_fields = config.model.to_dict()
    if model_fields["head"] not in kind.heads:
      raise ValueError(
        f"head={model_fields['head']!r} must be {' or '.join(kind.heads)}, "
        f"which config.task.name={name!r} trains"
      )
    for images in (source, held_out):
      if model_fields["num_classes"] < len(images.class_names):
        raise ValueError(
          f"num_classes={model_fields['num_classes']} is fewer than the "
          f"{len(images.class_names)} classes of {images.name}"
        )
    frozen = config.optim.freeze == "backbone"
    model = models.abstract_model(**model_fields, frozen=frozen)
  with section("task"):
    task = kind.make(source, model_fields["num_classes"], **fields)
  with section("transform"):
    transform = kind.transform(**config.transform.to_dict())
    transform.spec(config.eval.size, train=False)
  return Evaluation(
    task=task,
    transform=transform,
    source=held_out,
    model=model,
    layout=sharding.Layout(),
    size=config.eval.size,
    batch=config.eval.batch,
    loading={
      "on_bad_image": config.data.on_bad_image,
      "num_workers": config.data.num_workers,
    },
  )


@section("data")
def _open_source(
  config: Config, split: str, prepare: bool = True
) -> examples.Source:
  """A split of the configured data; process 0 prepares it if need be."""
  bad_images.check_policy(config.data.on_bad_image)
  return sources.make_source(
    config.data.name,
    split,
    data_dir=config.data.dir,
    prepare=prepare and jax.process_index() == 0,
  )


def make_recipe(
  config: Config, plan: BatchPlan, model: models.Net
) -> steps.Recipe:
  """Optimiser, schedule and EMA."""
  fields = config.optim.to_dict()
  schedule = _make_schedule(
    plan,
    base_batch=config.plan.base_batch * config.plan.groups,
    reference=fields.pop("lr_batch"),
    warmup_epochs=fields.pop("warmup_epochs"),
    **{name: fields.pop(name) for name in _SCHEDULE_FIELDS},
  )
  ema_momentum = functools.partial(optim.ema_momentum, **fields.pop("ema"))
  ema_momentum(0)  # it checks its arguments
  accum_steps = fields.pop("accum_steps")
  frozen = fields.pop("freeze") != "none"
  rates = optim.layer_rates(
    model.layers,
    layer_decay=fields.pop("layer_decay"),
    head_rate=fields.pop("head_rate"),
    trained=model.trained_layers if frozen else None,
  )
  optimizer = optim.make(fields.pop("name"), schedule, **fields)
  if set(rates.values()) != {1.0}:
    optimizer = optax.chain(optimizer, optim.scale_updates(rates))
  return steps.Recipe(
    optimizer=optimizer,
    schedule=schedule,
    ema_momentum=ema_momentum,
    seed=config.seed,
    accum_steps=accum_steps,
  )


def _make_schedule(
  plan: BatchPlan,
  *,
  base_batch: int,
  reference: int | None,
  warmup_epochs: float | None,
  **fields: Any,
) -> optax.Schedule:
  for name in _RATES:
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


def _check_batches(
  config: Config,
  plan: BatchPlan,
  layout: sharding.Layout,
) -> None:
  """Every batch must split evenly into micro-batches and BatchNorm groups."""
  accum_steps, bn_groups = config.optim.accum_steps, config.model.bn_groups
  for size, batch in plan.shapes:
    if batch % (accum_steps * layout.num_devices):
      raise ConfigError(
        f"config.optim.accum_steps={accum_steps} on {layout.num_devices} "
        f"device(s) does not divide the batch of {batch} at {size} px; set "
        "config.plan.batch_multiple to a multiple of their product"
      )
    if batch // accum_steps % bn_groups:
      raise ConfigError(
        f"config.model.bn_groups={bn_groups} does not divide the batch of "
        f"{batch // accum_steps} images at {size} px"
      )


def evaluation_steps(plan: BatchPlan, every_epochs: int) -> frozenset[int]:
  """Steps to evaluate after: the ends of epochs, and of the run."""
  ends = [*plan.epoch_starts[1:].tolist(), plan.num_steps]
  return frozenset({*ends[every_epochs - 1 :: every_epochs], plan.num_steps})


def _initial_model(config: Config, model: models.Net) -> Start:
  """What gives the net with weights, and says where they are from."""
  seed, fields = config.seed, config.weights.to_dict()

  @section("weights")
  def initial() -> tuple[models.Net, str]:
    return weights.start(model, seed, **fields)

  return initial


def initial_state(
  model: nnx.Module,
  task: Task,
  recipe: steps.Recipe,
  layout: sharding.Layout,
) -> steps.TrainState:
  """The state before the first step, on all devices, of a net's weights."""
  make = jax.jit(
    functools.partial(steps.init_state, optimizer=recipe.optimizer),
    out_shardings=layout.replicated,
  )
  trees = (*steps.split(model)[1:], task.init(recipe.seed))
  return make(*layout.replicate(trees))


def state_shapes(
  model: nnx.Module,
  task: Task,
  recipe: steps.Recipe,
  layout: sharding.Layout,
) -> Any:
  """Shapes and shardings of the state, to restore and compile with."""
  make = functools.partial(steps.init_state, optimizer=recipe.optimizer)
  trees = (*steps.split(model)[1:], task.init(recipe.seed))
  return layout.replicated_shapes(jax.eval_shape(make, *trees))
