"""TrainState, and the pure steps of training and evaluation.

No files, no configuration and no devices here: whoever calls decides what is
jitted, sharded and donated.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from mobilevit_jax import optim
from mobilevit_jax.tasks import losses
from mobilevit_jax.tasks import mix as mix_lib

Tree = Any  # nested dict of arrays

_MIX_STREAM = 1  # apart from the dropout's draws


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that training carries from one step to the next."""

  step: jax.Array  # int32, number of updates done
  params: Tree
  batch_stats: Tree
  opt_state: optax.OptState
  ema_params: Tree
  ema_batch_stats: Tree


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a train step does besides running the model.

  Attributes:
    optimizer: gradient transformation.
    schedule: learning rate by step, for the metrics.
    ema_momentum: EMA momentum by step.
    seed: of the dropout.
    label_smoothing: of the loss, in [0, 1).
    mix: Mixup and CutMix within each micro-batch, if any.
    class_weights: what the losses of each class's images are multiplied by.
    freeze_backbone: run everything but the classifier as in evaluation, its
      BatchNorm statistics and dropout included, and without a gradient.
    accum_steps: micro-batches that a batch is split into. The gradient is
      their mean, and each starts from the same running statistics, whose
      updates are averaged: BatchNorm sees them as so many more groups.
  """

  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  ema_momentum: Callable[[jax.Array], jax.Array]
  seed: int = 0
  label_smoothing: float = 0.0
  mix: mix_lib.Mix | None = None
  class_weights: tuple[float, ...] | None = None
  freeze_backbone: bool = False
  accum_steps: int = 1


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
  """Structure, parameters and BatchNorm statistics, as nested dicts."""
  graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def merge(graphdef: nnx.GraphDef, params: Tree, batch_stats: Tree) -> Any:
  """Inverse of `split`."""
  return nnx.merge(graphdef, params, batch_stats)


def init_state(
  params: Tree, batch_stats: Tree, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first step; the averages start at the values."""

  def copy(tree: Tree) -> Tree:  # the step donates each buffer once
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)

  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=copy(params),
    batch_stats=copy(batch_stats),
    opt_state=optimizer.init(params),
    ema_params=copy(params),
    ema_batch_stats=copy(batch_stats),
  )


def to_unit(images: jax.Array) -> jax.Array:
  """uint8 pixels to [0, 1]; floats pass as they are."""
  if images.dtype == jnp.uint8:
    return images.astype(jnp.float32) / 255
  return images


def train_step(
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  *,
  graphdef: nnx.GraphDef,
  recipe: Recipe,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update.

  Args:
    state: what the last step returned.
    images: uint8 `[b, h, w, 3]`, or float in [0, 1].
    labels: int `[b]`.
    graphdef: the model's structure.
    recipe: optimiser, loss and averaging.

  Returns:
    The next state, and scalars: `loss`, `top1`, `grad_norm`,
    `learning_rate`.
  """

  def loss_fn(params: Tree, images: jax.Array, labels: jax.Array, key: Any):
    model = merge(graphdef, params, state.batch_stats)
    rngs = nnx.Rngs(dropout=key)
    images = to_unit(images)
    targets = [(labels, 1.0)]
    if recipe.mix:
      mix_key = jax.random.fold_in(key, _MIX_STREAM)
      images, others, share = recipe.mix(images, labels, mix_key)
      targets = [(labels, share), (others, 1 - share)]
    if recipe.freeze_backbone:
      pooled = jax.lax.stop_gradient(model.pool(images))
      logits = model.classify(pooled, train=True, rngs=rngs)
    else:
      logits = model(images, train=True, rngs=rngs)
    loss, hits = _loss_and_hits(logits, targets, recipe)
    stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    return loss, (hits, stats)

  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
  if recipe.accum_steps == 1:
    result = grad_fn(state.params, images, labels, key)
  else:
    result = _mean_over_micro_batches(
      lambda *batch: grad_fn(state.params, *batch),
      (images, labels),
      key,
      recipe.accum_steps,
    )
  (loss, (top1, batch_stats)), grads = result

  updates, opt_state = recipe.optimizer.update(
    grads, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  momentum = recipe.ema_momentum(state.step)
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
  metrics = {
    "loss": loss,
    "top1": top1,
    "grad_norm": optax.tree.norm(grads),
    "learning_rate": recipe.schedule(state.step),
  }
  return new, metrics


def _loss_and_hits(
  logits: jax.Array, targets: Sequence[tuple[jax.Array, Any]], recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
  """Mean loss and share of right answers, over labels and their shares."""
  loss = hits = jnp.zeros(len(logits), logits.dtype)
  for labels, share in targets:
    part = losses.cross_entropy(
      logits, labels, label_smoothing=recipe.label_smoothing
    )
    if recipe.class_weights is not None:
      part *= jnp.asarray(recipe.class_weights, part.dtype)[labels]
    loss += share * part
    hits += share * (jnp.argmax(logits, axis=-1) == labels)
  return jnp.mean(loss), jnp.mean(hits)


def _mean_over_micro_batches(
  fn: Callable[..., Tree], batch: tuple[jax.Array, ...], key: Any, count: int
) -> Tree:
  """Mean of `fn(*micro_batch, key)` over `count` parts of the batch."""

  def split_leading(x: jax.Array) -> jax.Array:
    # Part a takes rows a, a + count, ...: every device keeps its own rows,
    # and the parts don't depend on how many devices there are.
    return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

  def add(total: Tree, part: tuple[Any, ...]) -> tuple[Tree, None]:
    index, *micro = part
    out = fn(*micro, jax.random.fold_in(key, index))
    return jax.tree.map(jnp.add, total, out), None

  parts = (jnp.arange(count), *map(split_leading, batch))
  first = jax.eval_shape(lambda p: fn(*p[1:], key), _first(parts))
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), first)
  total, _ = jax.lax.scan(add, zeros, parts)
  return jax.tree.map(lambda leaf: leaf / count, total)


def _first(parts: Tree) -> Tree:
  return jax.tree.map(lambda leaf: leaf[0], parts)


def eval_step(
  params: Tree,
  batch_stats: Tree,
  images: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  *,
  graphdef: nnx.GraphDef,
) -> dict[str, jax.Array]:
  """Masked sums of `losses.metric_sums` over one padded batch."""
  logits = merge(graphdef, params, batch_stats)(to_unit(images))
  return losses.metric_sums(logits, labels, mask)
