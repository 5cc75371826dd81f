"""TrainState, and the pure steps of training and evaluation.

No files, no configuration and no devices here: whoever calls decides what is
jitted, sharded and donated. Batches are dicts; only the task looks into them.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from mobilevit_jax import optim
from mobilevit_jax.tasks.task import Task

Tree = Any  # nested dict of arrays


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that training carries from one step to the next.

  Parameters are `{"net": ...}`, with `"task"` beside it where the task has
  parameters of its own.
  """

  step: jax.Array  # int32, number of updates done
  params: Tree
  batch_stats: Tree
  opt_state: optax.OptState
  ema_params: Tree
  ema_batch_stats: Tree


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a train step updates what it trains.

  Attributes:
    optimizer: gradient transformation.
    schedule: learning rate by step, for the metrics.
    ema_momentum: EMA momentum by step.
    seed: of the random draws in the step, as dropout's.
    accum_steps: micro-batches that a batch is split into. The gradient is
      their mean, and each starts from the same running statistics, whose
      updates are averaged: BatchNorm sees them as so many more groups.
  """

  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  ema_momentum: Callable[[jax.Array], jax.Array]
  seed: int = 0
  accum_steps: int = 1


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
  # Inside jit plain dicts are cheaper to trace than NNX's graph objects.
  """Structure, parameters and BatchNorm statistics, as nested dicts."""
  graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def merge(graphdef: nnx.GraphDef, params: Tree, batch_stats: Tree) -> Any:
  """Inverse of `split`."""
  return nnx.merge(graphdef, params, batch_stats)


def init_state(
  params: Tree,
  batch_stats: Tree,
  task_params: Tree,
  optimizer: optax.GradientTransformation,
) -> TrainState:
  """The state before the first step; the averages start at the values.

  Args:
    params: of the net.
    batch_stats: of the net.
    task_params: of the task; an empty dict for none.
    optimizer: of all parameters.
  """

  def copy(tree: Tree) -> Tree:  # the step donates each buffer once
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)

  params = {"net": params}
  if task_params:
    params["task"] = task_params
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=copy(params),
    batch_stats=copy(batch_stats),
    opt_state=optimizer.init(params),
    ema_params=copy(params),
    ema_batch_stats=copy(batch_stats),
  )


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  frozen: Tree,
  *,
  graphdef: nnx.GraphDef,
  recipe: Recipe,
  task: Task,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update.

  Args:
    state: what the last step returned.
    batch: `images` uint8 `[b, h, w, 3]`, or float in [0, 1], and what the
      task needs.
    frozen: the task's arrays that are not trained.
    graphdef: the net's structure.
    recipe: optimiser and averaging.
    task: loss and metrics.

  Returns:
    The next state, and scalars: `loss`, the task's own, `grad_norm` and
    `learning_rate`.
  """
  # --- Forward and backward ---------------------------------------------------

  def loss_fn(params: Tree, batch: dict[str, jax.Array], key: jax.Array) -> Any:
    # A model for this trace alone: its BatchNorm writes into these copies.
    model = merge(graphdef, params["net"], state.batch_stats)
    loss, metrics = task.loss(
      model,
      params.get("task", {}),
      _unit_images(batch),
      key,
      frozen,
      state.step,
    )
    # What the forward pass recorded: the next step's running statistics.
    stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    return loss, (metrics, stats)

  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  # The draws of a step depend on the seed and the step alone: a resumed run
  # makes them again.
  key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
  if recipe.accum_steps == 1:
    result = grad_fn(state.params, batch, key)
  else:
    # Sums over the parts would change with their number; means don't.
    result = _mean_over_micro_batches(
      lambda *micro: grad_fn(state.params, *micro),
      batch,
      key,
      recipe.accum_steps,
    )
  (loss, (metrics, batch_stats)), grads = result

  # --- Update -----------------------------------------------------------------

  updates, opt_state = recipe.optimizer.update(
    grads, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)

  # --- Averages: of the weights, and of BatchNorm's statistics ----------------

  momentum = recipe.ema_momentum(state.step)
  # EMA also averages BatchNorm's statistics, as ml-cvnets' does: they are what
  # evaluation uses.
  new = TrainState(
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    ema_params=optim.update_ema(state.ema_params, params, momentum),
    ema_batch_stats=optim.update_ema(
      state.ema_batch_stats, batch_stats, momentum
    ),
  )
  # The head before the backbone: in another order the sum rounds otherwise, and
  # this is the one of runs from before there were heads.
  parts = [grads["net"][name] for name in sorted(grads["net"], reverse=True)]
  metrics = {
    "loss": loss,
    **metrics,
    "grad_norm": optax.tree.norm([parts, grads.get("task", {})]),
    "learning_rate": recipe.schedule(state.step),
  }
  return new, metrics


def _unit_images(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """The batch with uint8 pixels as [0, 1]; floats pass as they are."""
  images = batch["images"]
  if images.dtype == jnp.uint8:
    images = images.astype(jnp.float32) / 255
  return {**batch, "images": images}


def _mean_over_micro_batches(
  fn: Callable[..., Tree], batch: Tree, key: jax.Array, count: int
) -> Tree:
  """Mean of `fn(micro_batch, key)` over `count` parts of the batch."""

  def split_leading(x: jax.Array) -> jax.Array:
    # Part a takes rows a, a + count, ...: every device keeps its own rows,
    # and the parts don't depend on how many devices there are.
    return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

  def add(total: Tree, part: tuple[jax.Array, Tree]) -> tuple[Tree, None]:
    index, micro = part
    # A key of its own for each part: dropout must differ between them.
    out = fn(micro, jax.random.fold_in(key, index))
    return jax.tree.map(jnp.add, total, out), None

  parts = jax.tree.map(split_leading, batch)
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  # The scan needs a first total; shapes come without a forward pass.
  zeros = jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(fn, first, key)
  )
  total, _ = jax.lax.scan(add, zeros, (jnp.arange(count), parts))
  return jax.tree.map(lambda leaf: leaf / count, total)


def eval_step(
  params: Tree,
  batch_stats: Tree,
  batch: dict[str, jax.Array],
  *,
  graphdef: nnx.GraphDef,
  task: Task,
) -> dict[str, jax.Array]:
  """The task's outputs for one batch, `[b, ...]` each, padding and all."""
  model = merge(graphdef, params, batch_stats)
  return task.outputs(model, _unit_images(batch))
