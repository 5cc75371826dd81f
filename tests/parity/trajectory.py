"""Trains ours and timm's net side by side and prints how far they part.

    JAX_ENABLE_X64=1 python -m tests.parity.trajectory --dtype=float64
    JAX_ENABLE_X64=1 python -m tests.parity.trajectory --dtype=float64 \
      --name=mobilevitv2_050 --steps=30
    python -m tests.parity.trajectory --dtype=float32 --steps=100

Both start from our initial weights and see the same images; ours takes
`steps.train_step`, timm's a plain PyTorch loop with PyTorch's own AdamW, loss
and cosine. One JSON object on standard output: `loss` is the largest relative
difference over the steps, the rest the largest absolute ones at the end, of
parameters of up to 1 or so and of statistics.
"""

import argparse
import dataclasses
import functools
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timm
import torch

from mobilevit_jax import create_model
from mobilevit_jax import optim
from mobilevit_jax import steps
from mobilevit_jax.tasks import classify
from mobilevit_jax.weights import names
from mobilevit_jax.weights import trees

NUM_CLASSES, SIZE, BATCH = 10, 96, 16
WARMUP, SMOOTHING, EMA = 10, 0.1, 0.05


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What the two families are trained with.

  Attributes:
    rates: the first, the highest and the last learning rate.
    weight_decay: see `optim.adamw`, as the next two.
    decay: what decays.
    clip_norm: of the gradient.
  """

  rates: tuple[float, float, float]
  weight_decay: float
  decay: optim.DecayMask = "all"
  clip_norm: float | None = None


RECIPES = {
  "mobilevit_xxs": Recipe((2e-4, 2e-3, 2e-4), 0.01),
  "mobilevitv2_050": Recipe((1e-6, 9e-3, 9e-4), 0.004, "no_norm_bias", 10.0),
}


def batch_of(step: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
  """Images with something to learn: each class has a colour and a place."""
  rng = np.random.default_rng([7, step])
  labels = rng.integers(NUM_CLASSES, size=BATCH)
  images = 0.5 * rng.random((BATCH, SIZE, SIZE, 3))
  for image, label in zip(images, labels, strict=True):
    row, column = divmod(int(label), 4)
    image[row * 30 : row * 30 + 30, column * 24 : column * 24 + 24] += 0.5
    image[..., label % 3] *= 0.7
  return images.astype(dtype), labels


def learning_rate(recipe: Recipe, step: int, num_steps: int) -> float:
  """Warm-up, then a cosine that it doesn't shift, in plain Python."""
  first, peak, last = recipe.rates
  if step < WARMUP:
    return first + step * (peak - first) / WARMUP
  cosine = (1 + math.cos(math.pi * step / num_steps)) / 2
  return last + (peak - last) * cosine


class Ours:
  """The package's own step."""

  def __init__(self, name: str, num_steps: int, dtype: str):
    model = create_model(
      name,
      num_classes=NUM_CLASSES,
      dropout=0.0,
      classifier_dropout=0.0,
      dtype=dtype,
    )
    graphdef, params, stats = steps.split(model)
    params, stats = jax.tree.map(lambda x: x.astype(dtype), (params, stats))
    fields = RECIPES[name]
    first, peak, last = fields.rates
    schedule = optim.warmup_cosine(
      epoch_starts=(0,),
      num_steps=num_steps,
      init_lr=first,
      peak_lr=peak,
      final_lr=last,
      warmup_steps=WARMUP,
      cosine_unit="step",
    )
    recipe = steps.Recipe(
      optimizer=optim.adamw(
        schedule,
        weight_decay=fields.weight_decay,
        decay=fields.decay,
        clip_norm=fields.clip_norm,
      ),
      schedule=schedule,
      ema_momentum=functools.partial(optim.ema_momentum, momentum=EMA),
    )
    self._rows = names.table(model)
    self.state = steps.init_state(params, stats, {}, recipe.optimizer)
    self._step = jax.jit(
      functools.partial(
        steps.train_step,
        frozen={},
        graphdef=graphdef,
        recipe=recipe,
        task=classify.Classify(label_smoothing=SMOOTHING),
      )
    )

  def step(self, images: np.ndarray, labels: np.ndarray) -> float:
    batch = {"images": jnp.asarray(images), "labels": jnp.asarray(labels)}
    self.state, metrics = self._step(self.state, batch)
    return float(metrics["loss"])

  def weights(self, ema: bool) -> dict[str, np.ndarray]:
    """By timm's names."""
    state = self.state
    params = state.ema_params if ema else state.params
    stats = state.ema_batch_stats if ema else state.batch_stats
    flat = trees.flatten(params["net"]) | trees.flatten(stats)
    arrays = {path: np.asarray(leaf) for path, leaf in flat.items()}
    return names.to_dialect(arrays, self._rows, "timm")


class Theirs:
  """timm's net and PyTorch's parts."""

  def __init__(self, name: str, start: dict[str, np.ndarray], dtype: str):
    self.net = timm.create_model(name, num_classes=NUM_CLASSES)
    self.net.to(getattr(torch, dtype)).train()
    self.net.load_state_dict(
      {name: torch.from_numpy(value.copy()) for name, value in start.items()}
    )
    self.ema = {k: v.clone() for k, v in self.net.state_dict().items()}
    self._loss = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    recipe = RECIPES[name]
    spared, others = [], []
    for value in self.net.parameters():
      spare = recipe.decay == "no_norm_bias" and value.ndim <= 1
      (spared if spare else others).append(value)
    self._clip_norm = recipe.clip_norm
    self.largest_norm = 0.0
    self._adamw = torch.optim.AdamW(
      [{"params": others}, {"params": spared, "weight_decay": 0.0}],
      lr=recipe.rates[1],
      weight_decay=recipe.weight_decay,
    )

  def step(self, images: np.ndarray, labels: np.ndarray, rate: float) -> float:
    pixels = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    loss = self._loss(self.net(pixels), torch.from_numpy(labels))
    for group in self._adamw.param_groups:
      group["lr"] = rate
    self._adamw.zero_grad()
    loss.backward()
    if self._clip_norm is not None:
      norm = torch.nn.utils.clip_grad_norm_(
        self.net.parameters(), self._clip_norm
      )
      self.largest_norm = max(self.largest_norm, norm.item())
    self._adamw.step()
    for name, value in self.net.state_dict().items():
      if value.is_floating_point():
        self.ema[name].mul_(1 - EMA).add_(value, alpha=EMA)
    return loss.item()


def compare(name: str, num_steps: int, dtype: str) -> dict[str, Any]:
  """Trains both and returns their differences."""
  ours = Ours(name, num_steps, dtype)
  theirs = Theirs(name, ours.weights(ema=False), dtype)
  losses = []
  for step in range(num_steps):
    images, labels = batch_of(step, dtype)
    mine = ours.step(images, labels)
    rate = learning_rate(RECIPES[name], step, num_steps)
    yours = theirs.step(images, labels, rate)
    losses.append((mine, yours))
  trained = ours.weights(ema=False), theirs.net.state_dict()
  averaged = ours.weights(ema=True), theirs.ema
  params = differences(*trained, running=False)
  stats = differences(*trained, running=True)
  ema = differences(*averaged, running=False)
  ema |= differences(*averaged, running=True)
  types = {str(leaf.dtype) for leaf in jax.tree.leaves(ours.state.params)}
  return {
    "dtype": dtype,
    "types": sorted(types),
    "steps": num_steps,
    "first_loss": losses[0][1],
    "last_loss": losses[-1][1],
    "loss": max(abs(a - b) / abs(b) for a, b in losses),
    "params": max(params.values()),
    "batch_stats": max(stats.values()),
    "ema": max(ema.values()),
    "largest_norm": theirs.largest_norm,
    "worst_params": dict(
      sorted(params.items(), key=lambda item: -item[1])[:10]
    ),
  }


def differences(
  ours: dict[str, np.ndarray], theirs: dict[str, Any], *, running: bool
) -> dict[str, float]:
  """Largest absolute difference of each tensor."""
  return {
    name: float(np.abs(ours[name] - value.detach().numpy()).max())
    for name, value in theirs.items()
    if value.is_floating_point() and (".running_" in name) == running
  }


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--dtype", choices=("float32", "float64"), required=True)
  parser.add_argument("--name", choices=RECIPES, default="mobilevit_xxs")
  parser.add_argument("--steps", type=int, default=50)
  args = parser.parse_args()
  print(json.dumps(compare(args.name, args.steps, args.dtype), indent=2))


if __name__ == "__main__":
  main()
