"""Trains ours and transformers' segmenter side by side, on the same batches.

    JAX_ENABLE_X64=1 python -m tests.parity.segmentation
    python -m tests.parity.segmentation --data=FOLDER --epochs=8

The first prints how far 30 steps in float64 part, of drawn images. The second
trains both in float32 by a configuration on a folder of images and masks, and
prints a line an epoch: the mean IoU of both on the held-out images, by one
meter. Both nets start from our initial weights and drop nothing out; the loss
is the paper's, and the head learns at a rate of its own. transformers' net is
trained by a plain PyTorch loop with PyTorch's own AdamW, resize and loss.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers

from configs import segment as segment_config
from mobilevit_jax import create_model
from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import optim
from mobilevit_jax import steps
from mobilevit_jax.models.heads import deeplabv3
from mobilevit_jax.tasks import segment
from mobilevit_jax.weights import names
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import trees
from tests.parity import trajectory

STEPS, CLASSES, SIZE, BATCH = 30, 5, 96, 8
HEAD_RATE, WEIGHT_DECAY = 10.0, 0.01


def batch_of(step: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
  """Coloured boxes on noise, their masks, and a border that is ignored."""
  rng = np.random.default_rng([11, step])
  images = 0.5 * rng.random((BATCH, SIZE, SIZE, 3))
  masks = np.zeros((BATCH, SIZE, SIZE), np.uint8)
  for image, mask in zip(images, masks, strict=True):
    for label in rng.permutation(np.arange(1, CLASSES))[:2]:
      top, left = rng.integers(0, SIZE // 2, 2)
      box = np.s_[top : top + SIZE // 2, left : left + SIZE // 2]
      mask[box] = label
      image[box] = 0.5 * image[box] + 0.5 * np.eye(3)[label % 3] * label / 4
    mask[:3] = segment.IGNORED
  return images.astype(dtype), masks


class Ours:
  """The package's own step."""

  def __init__(
    self, model: Any, task: segment.Segment, recipe: steps.Recipe, dtype: str
  ):
    graphdef, *trees_ = steps.split(model)
    params, stats = jax.tree.map(lambda x: x.astype(dtype), trees_)
    self._rows = names.table(model)
    self.state = steps.init_state(params, stats, {}, recipe.optimizer)
    self._step = jax.jit(
      functools.partial(
        steps.train_step,
        frozen={},
        graphdef=graphdef,
        recipe=recipe,
        task=task,
      )
    )

  def step(self, images: np.ndarray, masks: np.ndarray) -> float:
    batch = {"images": jnp.asarray(images), "masks": jnp.asarray(masks)}
    self.state, metrics = self._step(self.state, batch)
    return float(metrics["loss"])

  def weights(self) -> dict[str, np.ndarray]:
    """By transformers' names."""
    state = self.state
    flat = trees.flatten(state.params["net"]) | trees.flatten(state.batch_stats)
    arrays = {path: np.asarray(leaf) for path, leaf in flat.items()}
    return names.to_dialect(arrays, self._rows, "hf")


class Theirs:
  """transformers' net and PyTorch's parts."""

  def __init__(self, model: Any, *, stride: int, head_rate: float, dtype: str):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / "hf"
      save_weights(model, path, to="hf")
      self.net = transformers.MobileViTForSemanticSegmentation.from_pretrained(
        path,
        output_stride=stride,
        atrous_rates=list(deeplabv3.RATES[stride]),
        hidden_dropout_prob=0.0,
        aspp_dropout_prob=0.0,
        classifier_dropout_prob=0.0,
      )
    self.net.to(getattr(torch, dtype)).train()
    backbone, head = [], []
    for name, value in self.net.named_parameters():
      (head if name.startswith("segmentation_head") else backbone).append(value)
    self._rates = (1.0, head_rate)
    self._adamw = torch.optim.AdamW(
      [{"params": backbone}, {"params": head}], weight_decay=WEIGHT_DECAY
    )

  def logits(self, images: np.ndarray) -> torch.Tensor:
    """Of images in [0, 1], whose channels these weights take as BGR."""
    pixels = np.moveaxis(images[..., ::-1], -1, 1).copy()
    return self.net(torch.from_numpy(pixels)).logits

  def step(self, images: np.ndarray, masks: np.ndarray, rate: float) -> float:
    logits = torch.nn.functional.interpolate(
      self.logits(images), size=masks.shape[1:], mode="bilinear"
    )
    truth = torch.from_numpy(masks.astype(np.int64))
    loss = torch.nn.functional.cross_entropy(
      logits, truth, ignore_index=segment.IGNORED
    )
    for group, factor in zip(
      self._adamw.param_groups, self._rates, strict=True
    ):
      group["lr"] = factor * rate
    self._adamw.zero_grad()
    loss.backward()
    self._adamw.step()
    return loss.item()


def trajectory_of(num_steps: int, dtype: str) -> dict[str, Any]:
  """How far drawn images take the two apart."""
  model = create_model(
    "mobilevit_xxs",
    "deeplabv3",
    num_classes=CLASSES,
    dropout=0.0,
    aspp_dropout=0.0,
    classifier_dropout=0.0,
    dtype=dtype,
  )
  first, peak, last = 9e-5, 9e-4, 1e-6
  schedule = optim.warmup_cosine(
    epoch_starts=(0,),
    num_steps=num_steps,
    init_lr=first,
    peak_lr=peak,
    final_lr=last,
    warmup_steps=trajectory.WARMUP,
    cosine_unit="step",
  )
  rates = optim.layer_rates(model.layers, head_rate=HEAD_RATE)
  recipe = steps.Recipe(
    optimizer=optax.chain(
      optim.adamw(schedule, weight_decay=WEIGHT_DECAY),
      optim.scale_updates(rates),
    ),
    schedule=schedule,
    ema_momentum=functools.partial(optim.ema_momentum, momentum=0.05),
  )
  ours = Ours(model, segment.Segment(CLASSES), recipe, dtype)
  theirs = Theirs(model, stride=16, head_rate=HEAD_RATE, dtype=dtype)
  fields = trajectory.Recipe((first, peak, last), WEIGHT_DECAY)
  losses = []
  for step in range(num_steps):
    images, masks = batch_of(step, dtype)
    rate = trajectory.learning_rate(fields, step, num_steps)
    losses.append((ours.step(images, masks), theirs.step(images, masks, rate)))
  trained = ours.weights(), theirs.net.state_dict()
  params = trajectory.differences(*trained, running=False)
  stats = trajectory.differences(*trained, running=True)
  return {
    "dtype": dtype,
    "types": sorted(
      {str(leaf.dtype) for leaf in jax.tree.leaves(ours.state.params)}
    ),
    "steps": num_steps,
    "first_loss": losses[0][1],
    "last_loss": losses[-1][1],
    "loss": max(abs(a - b) / abs(b) for a, b in losses),
    "params": max(params.values()),
    "batch_stats": max(stats.values()),
  }


def curves(data: str, epochs: int, size: int, seed: int) -> None:
  """Trains both on a folder of masks and prints a line an epoch."""
  config = segment_config.get_config(f"xxs,folder,{size}")
  config.seed = seed
  config.model.update(
    dropout=0.0, aspp_dropout=0.0, classifier_dropout=0.0, aspp_width=128
  )
  config.model.output_stride = 8
  config.data.update(dir=data, check=False)
  config.weights.reset = "none"
  config.plan.num_epochs = epochs
  config.optim.update(
    init_lr=1e-4, peak_lr=5e-4, lr_batch=16, head_rate=HEAD_RATE
  )
  config.optim.weight_decay = WEIGHT_DECAY
  config.transform.short_side = (1.5, 2.75)
  config.eval.update(size=256, batch=16)
  setup = experiment.build(config)
  evaluation, plan = setup.evaluation, setup.plan
  model, _ = setup.initial_model()
  ours = Ours(model, evaluation.task, setup.recipe, "float32")
  theirs = Theirs(model, stride=8, head_rate=HEAD_RATE, dtype="float32")
  evaluator = evaluate.Evaluator(dataclasses.replace(evaluation, batch=16))
  steps_an_epoch = plan.num_steps // epochs
  batches = setup.batches(0)
  seen: dict[str, list[float]] = {"ours": [], "transformers": []}
  for step in range(plan.num_steps):
    batch = next(batches)
    rate = float(setup.recipe.schedule(step))
    pixels = batch["images"].astype(np.float32) / 255
    seen["ours"].append(ours.step(batch["images"], batch["masks"]))
    seen["transformers"].append(theirs.step(pixels, batch["masks"], rate))
    if (step + 1) % steps_an_epoch:
      continue
    state = ours.state
    found = evaluator({"ours": (state.params["net"], state.batch_stats)})
    line = {
      "epoch": (step + 1) // steps_an_epoch,
      "loss": float(np.mean(seen["ours"])),
      "loss_transformers": float(np.mean(seen["transformers"])),
      "miou": found["ours_miou"],
      "miou_transformers": judge(evaluator, theirs),
    }
    print(json.dumps(line), flush=True)
    seen = {name: [] for name in seen}
  batches.close()


def judge(evaluator: evaluate.Evaluator, theirs: Theirs) -> float:
  """transformers' mean IoU, by our pipeline and meter."""
  setup = evaluator.setup
  meter = setup.task.meter(setup.source)
  theirs.net.eval()
  with torch.no_grad():
    for index in range(len(setup.source)):
      example = setup.transform.decode(setup.source[index])
      images = setup.transform.evaluate(example, setup.size)["images"]
      logits = theirs.logits(images[None].astype(np.float32) / 255)
      logits = torch.nn.functional.interpolate(
        logits, size=images.shape[:2], mode="bilinear"
      )
      classes = logits.argmax(1).numpy().astype(np.uint8)
      meter.add({"ids": np.array([index]), "classes": classes})
  theirs.net.train()
  return meter.result()["miou"]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", help="folder of images and masks")
  parser.add_argument("--epochs", type=int, default=8)
  parser.add_argument("--size", type=int, default=160, help="of the crops")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  if args.data:
    curves(args.data, args.epochs, args.size, args.seed)
  else:
    print(json.dumps(trajectory_of(STEPS, "float64"), indent=2))


if __name__ == "__main__":
  main()
