"""Figures and tables of the recipe, computed by the code that runs it."""

import functools
import statistics
from typing import Any

import numpy as np

from configs import imagenet
from docs.generate import svg
from mobilevit_jax import optim
from mobilevit_jax.data.plan import BatchPlan
from mobilevit_jax.data.plan import RULES

NUM_IMAGES = 1_281_167  # of ImageNet-1k's training set


@functools.cache
def plan(**changes: Any) -> BatchPlan:
  """The plan of configs/imagenet.py, with fields of it changed."""
  config = imagenet.get_config()
  fields = {**config.plan.to_dict(), **changes}
  return BatchPlan(NUM_IMAGES, seed=config.seed, **fields)


def batches() -> str:
  """A table: images and megapixels of a step, by size and by rule."""
  shapes = {rule: dict(plan(rule=rule).shapes) for rule in RULES}
  lines = [
    "| side, px | "
    + " | ".join(f"`{rule}`, images | megapixels" for rule in shapes)
    + " |",
    "|---|" + "---|" * 2 * len(shapes),
  ]
  for size in shapes["cvnets_v01"]:
    cells = [str(size)]
    for batch in (found[size] for found in shapes.values()):
      cells += [f"{batch:,}", f"{batch * size * size / 1e6:.1f}"]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def lengths() -> str:
  """A table: steps of an epoch and of 300, by rule."""
  rows = {
    **{f"`{rule}`": plan(rule=rule) for rule in RULES},
    "256 px alone": plan(sizes=(256,)),
  }
  lines = [
    "| batches | steps of an epoch: least | mean | most | steps of the run |",
    "|---|---|---|---|---|",
  ]
  for name, found in rows.items():
    ends = [*found.epoch_starts.tolist(), found.num_steps]
    steps = np.diff(ends).tolist()
    lines.append(
      f"| {name} | {min(steps)} | {statistics.mean(steps):.1f} | "
      f"{max(steps)} | {found.num_steps:,} |"
    )
  return "\n".join(lines)


def sizes(shown: int = 48) -> str:
  """The five kinds of step to scale, and the first steps of the run."""
  found = plan()
  largest, scale = max(size for size, _ in found.shapes), 0.3
  column, floor = 112, 130.0
  drawing = svg.Drawing(
    560,
    360,
    "The sizes and batches of a step, and the sizes of the first steps",
  )
  for index, (size, batch) in enumerate(found.shapes):
    side = size * scale
    middle = column * (index + 0.5)
    drawing.rect(middle - side / 2, floor - side, side, side, f"s{index}")
    drawing.text(middle, floor + 18, f"{size} px", "text")
    drawing.text(middle, floor + 36, f"{batch:,} images", "note")
    pixels = batch * size * size / 1e6
    drawing.text(middle, floor + 52, f"{pixels:.0f} megapixels", "note")
  kinds = {size: index for index, (size, _) in enumerate(found.shapes)}
  base, left, wide = 330.0, 40, 520 / shown
  drawing.text(0, 218, "side of the images, by step", "note", "start")
  for step in range(shown):
    size = found.size(step)
    high = round(size * scale, 1)
    x = round(left + step * wide, 2)
    drawing.rect(x, base - high, wide - 2, high, f"s{kinds[size]}")
    if step % 8 == 0:
      drawing.text(x + wide / 2, base + 16, str(step), "note")
  drawing.text(
    left - 6, base - largest * scale + 10, f"{largest}", "note", "end"
  )
  drawing.text(left - 6, base, "0", "note", "end")
  return drawing.markup()


def learning_rate() -> str:
  """The rate over the whole run, and over its first epochs."""
  found = plan()
  config = imagenet.get_config().optim
  names = ("init_lr", "peak_lr", "final_lr", "warmup_steps", "cosine_unit")
  schedule = optim.warmup_cosine(
    epoch_starts=found.epoch_starts,
    num_steps=found.num_steps,
    **{name: config[name] for name in names},
  )
  drawing = svg.Drawing(
    560, 400, "The learning rate over the run, and over its first epochs"
  )
  panels = (
    (20, found.num_steps, f"the whole run, {found.num_epochs} epochs"),
    (220, int(found.epoch_starts[12]), "its first 12 epochs"),
  )
  left, width, high = 56, 490, 130
  for top, steps, title in panels:
    at = np.unique(np.linspace(0, steps - 1, 480).astype(int))
    rates = np.asarray(schedule(at))
    drawing.text(left, top + 4, title, "text", "start")
    floor = top + 20 + high
    unit = high / config.peak_lr
    drawing.line([(left, floor), (left + width, floor)], "grid")
    for rate in (config.init_lr, config.peak_lr):
      y = floor - unit * rate
      drawing.line([(left, y), (left + width, y)], "grid")
      drawing.text(left - 6, y + 4, f"{rate:g}", "note", "end")
    drawing.line(
      [
        (left + width * float(step) / steps, floor - unit * float(rate))
        for step, rate in zip(at, rates, strict=True)
      ],
      "curve",
    )
    for part, anchor in enumerate(("start", "middle", "end")):
      step, x = steps * part // 2, left + width * part / 2
      drawing.text(x, floor + 18, f"step {step:,}", "note", anchor)
  return drawing.markup()
