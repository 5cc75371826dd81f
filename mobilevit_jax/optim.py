"""Optimisers with a warm-up-cosine rate, and the EMA of the weights.

Source: ml-cvnets v0.1, `optim/scheduler/cosine.py`, `optim/base_optim.py`,
`cvnets/misc/averaging_utils.py` and the `mobilevit_*.yaml` recipes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
import optax

CosineUnit = Literal["epoch", "step"]
DecayMask = Literal["all", "no_norm_bias"]


def warmup_cosine(
  *,
  epoch_starts: Sequence[int] | np.ndarray,
  num_steps: int,
  init_lr: float = 2e-4,
  peak_lr: float = 2e-3,
  final_lr: float = 2e-4,
  warmup_steps: int = 3000,
  cosine_unit: CosineUnit = "epoch",
) -> optax.Schedule:
  """Linear warm-up, then half a cosine that the warm-up does not shift.

  For `step < warmup_steps` the rate is `init_lr + step * (peak_lr - init_lr)
  / warmup_steps`; after it, `final_lr + (peak_lr - final_lr) * (1 +
  cos(pi * progress)) / 2` with `progress = epoch / num_epochs`, 0-based, as
  v0.1 steps it (its rounding to 8 places left out), or `step / num_steps`.

  Args:
    epoch_starts: first step of each epoch, from the batch plan. With the
      multi-scale sampler an epoch is no fixed number of steps.
    num_steps: of the whole run.
    init_lr: at step 0.
    peak_lr: at the end of the warm-up.
    final_lr: at the end of the run.
    warmup_steps: 0 for none.
    cosine_unit: when the cosine moves, once an `"epoch"` or at every `"step"`.

  Returns:
    A function from the step to the learning rate.
  """
  if warmup_steps < 0:
    raise ValueError(f"warmup_steps={warmup_steps} must not be negative")
  rates = {"init_lr": init_lr, "peak_lr": peak_lr, "final_lr": final_lr}
  for name, rate in rates.items():
    if not (rate >= 0 and np.isfinite(rate)):
      raise ValueError(f"{name}={rate} must be a finite number from 0 up")
  if cosine_unit not in ("epoch", "step"):
    raise ValueError(f"cosine_unit={cosine_unit!r} must be 'epoch' or 'step'")
  # Epochs differ in steps where batches do (the sampler of several sizes), so
  # they are told by where they start.
  starts = np.asarray(epoch_starts, np.int32)

  def schedule(step: ArrayLike) -> jax.Array:
    step = jnp.asarray(step)
    real = step.astype(jnp.result_type(float))  # float64 where enabled
    # v0.1 updates the cosine once an epoch: within it the rate is constant.
    if cosine_unit == "epoch":
      epoch = jnp.searchsorted(starts, step, side="right") - 1
      progress = epoch.astype(real.dtype) / len(starts)
    else:
      progress = real / num_steps
    # (1 + cos(pi t)) / 2 falls from 1 to 0.
    cosine = (1 + jnp.cos(jnp.pi * progress)) / 2
    rate = final_lr + (peak_lr - final_lr) * cosine
    warm = init_lr + real * ((peak_lr - init_lr) / max(warmup_steps, 1))
    # The warm-up replaces the cosine's first part, and doesn't shift it.
    return jnp.where(step < warmup_steps, warm, rate)

  return schedule


def adamw(
  schedule: optax.Schedule,
  *,
  weight_decay: float = 0.01,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  decay: DecayMask = "all",
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """AdamW with the decay times the learning rate, as in torch.

  Args:
    schedule: step to learning rate.
    weight_decay: of the parameters that `decay` names.
    b1: decay rate of the first moment.
    b2: decay rate of the second moment.
    eps: added after the bias correction.
    decay: `"all"` parameters, norms and biases too, as the paper's recipe
      does, or `"no_norm_bias"` to leave out everything of rank 1.
    clip_norm: largest global norm of the gradient; None does not clip.
  """
  mask = _decay_mask(weight_decay, decay)
  # AdamW (arXiv 1711.05101): the decay is apart from the moments, and times the
  # rate.
  optimizer = optax.adamw(
    schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask
  )
  return _clipped(optimizer, clip_norm)


def sgd(
  schedule: optax.Schedule,
  *,
  momentum: float = 0.9,
  weight_decay: float = 4e-5,
  decay: DecayMask = "all",
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Gradient descent with momentum and decay as torch's SGD has them.

  The decay is added to the gradient, so the momentum remembers it, and the
  learning rate multiplies the momentum's sum.

  Args:
    schedule: step to learning rate.
    momentum: share of the last step's sum that stays, in [0, 1).
    weight_decay: see `adamw`, as the next two.
    decay: see `adamw`.
    clip_norm: see `adamw`.
  """
  if not 0 <= momentum < 1:
    raise ValueError(f"momentum={momentum} must be at least 0 and below 1")
  mask = _decay_mask(weight_decay, decay)
  optimizer = optax.chain(
    # torch's order: gradient + decay, then the momentum's sum, then the rate.
    optax.add_decayed_weights(weight_decay, mask),
    optax.sgd(schedule, momentum=momentum),
  )
  return _clipped(optimizer, clip_norm)


# By `config.optim.name`, each with those of the section's fields that only it
# takes.
OPTIMIZERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
  "adamw": (adamw, ("b1", "b2", "eps")),
  "sgd": (sgd, ("momentum",)),
}


def make(
  name: str, schedule: optax.Schedule, **fields: Any
) -> optax.GradientTransformation:
  """The optimiser of a name in `OPTIMIZERS`; others' own fields are ignored."""
  if name not in OPTIMIZERS:
    raise ValueError(f"name={name!r} must be one of {', '.join(OPTIMIZERS)}")
  # A section has the fields of all optimisers; each takes its own.
  for other, (_, own) in OPTIMIZERS.items():
    if other != name:
      fields = {key: fields[key] for key in fields if key not in own}
  return OPTIMIZERS[name][0](schedule, **fields)


def _decay_mask(weight_decay: float, decay: str) -> Callable[[Any], Any] | None:
  if weight_decay < 0:
    raise ValueError(f"weight_decay={weight_decay} must not be negative")
  if decay not in ("all", "no_norm_bias"):
    raise ValueError(f"decay={decay!r} must be 'all' or 'no_norm_bias'")
  if decay == "all":
    return None
  # Biases, scales and statistics have one axis; kernels two or more.
  return lambda params: jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)


def _clipped(
  optimizer: optax.GradientTransformation, most: float | None
) -> optax.GradientTransformation:
  if most is None:
    return optimizer
  if most <= 0:
    # Before anything else looks at the gradient.
    raise ValueError(f"clip_norm={most} must be above 0, or None")
  return optax.chain(_clip_by_global_norm(most), optimizer)


def _clip_by_global_norm(most: float) -> optax.GradientTransformation:
  """optax's, but with the 1e-6 that `torch.nn.utils.clip_grad_norm_` adds."""

  def clip(updates: Any, params: Any) -> Any:
    del params
    # Over all parameters at once, as torch does, and not leaf by leaf.
    norm = optax.tree.norm(updates)
    return optax.tree.scale(jnp.minimum(1.0, most / (norm + 1e-6)), updates)

  return optax.stateless(clip)


def scale_rate(rate: float, *, batch: int, reference: int | None) -> float:
  """The learning rate of a batch, from that of a reference batch.

  Adam's rate goes with the square root of the batch (Malladi et al. 2022,
  arXiv 2205.10287): the paper's 2e-3 for 1024 images is 5e-4 for 64.

  Args:
    rate: of the reference batch.
    batch: images in a step.
    reference: images in a step of the reference; None leaves the rate as it is.
  """
  if reference is None:
    return rate
  if reference < 1:
    raise ValueError(f"lr_batch={reference} must be an integer from 1, or None")
  # The linear rule (Goyal et al. 2017, arXiv 1706.02677) is SGD's.
  return rate * (batch / reference) ** 0.5


def layer_rates(
  layers: Sequence[str],
  *,
  layer_decay: float = 1.0,
  head_rate: float = 1.0,
  trained: Collection[str] | None = None,
) -> dict[str, float]:
  """Shares of the learning rate that a net's parts train with.

  Args:
    layers: the parts' paths, from the image to the outputs.
    layer_decay: what the rate is multiplied by at each part, from the last.
    head_rate: what the rates of the head's parts are multiplied by: a new head
      on a trained backbone has more to learn.
    trained: the only parts that train, all at the full rate; None for all.

  Returns:
    Path to share, 0 for what is frozen.
  """
  if not 0 < layer_decay <= 1:
    raise ValueError(f"layer_decay={layer_decay} must be above 0, at most 1")
  if not 0 < head_rate < float("inf"):
    raise ValueError(f"head_rate={head_rate} must be a number above 0")
  # Layer-wise decay as in BEiT (arXiv 2106.08254): parts near the image have
  # learnt what is general, and move less.
  last = len(layers) - 1
  rates = {}
  for index, name in enumerate(layers):
    # The last part has the full rate, each before it `layer_decay` less.
    rates[name] = layer_decay ** (last - index)
    if trained is not None:
      rates[name] = float(name in trained)
    if name.startswith("head/"):
      # Of the head alone, on top of the decay.
      rates[name] *= head_rate
  return rates


def scale_updates(rates: Mapping[str, float]) -> optax.GradientTransformation:
  """Multiplies the updates of each part of the net, weight decay and all.

  Args:
    rates: from `layer_rates`; a task's own parameters keep their updates.
  """

  def scale(updates: Any, params: Any) -> Any:
    # Weight decay is part of the update by now, so frozen parts don't decay.
    del params
    # The path of a part has two names, `backbone/stage3` or `head/classifier`.
    net = {
      owner: {
        name: optax.tree.scale(rates[f"{owner}/{name}"], part)
        for name, part in parts.items()
      }
      for owner, parts in updates["net"].items()
    }
    return {**updates, "net": net}

  return optax.stateless(scale)


def ema_momentum(
  step: ArrayLike, *, momentum: float = 5e-4, warmup: bool = False
) -> jax.Array:
  """Share of the new weights in the average after step `step` (0-based).

  Without the warm-up it is constant, as in the paper's recipe. With it the
  share starts at 1 and falls as `10 / (10 + step)` to `momentum`: short runs
  need that, since an average started at the initial BatchNorm variances of 1
  remembers them for several `1 / momentum` steps.
  """
  if not 0 < momentum <= 1:
    raise ValueError(f"momentum={momentum} must be above 0 and at most 1")
  if not warmup:
    return jnp.asarray(momentum, jnp.result_type(float))
  real = jnp.asarray(step).astype(jnp.result_type(float))
  # TensorFlow's ExponentialMovingAverage(num_updates=n) keeps
  # (1 + n) / (10 + n) and takes 9 / (10 + n) of the new weights; here it is 10,
  # so that nothing of the first weights stays.
  return jnp.maximum(momentum, 10 / (10 + real))


def update_ema(average: Any, new: Any, momentum: ArrayLike) -> Any:
  """`average + momentum * (new - average)`, leaf by leaf."""
  return jax.tree.map(
    lambda old, leaf: old + jnp.asarray(momentum, old.dtype) * (leaf - old),
    average,
    new,
  )
