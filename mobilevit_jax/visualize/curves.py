"""Learning curves of a run, from its `metrics.jsonl`."""

from collections import Counter
from collections.abc import Sequence
import json
import os
import pathlib
from typing import Any, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Records = Sequence[dict[str, Any]]

# Okabe and Ito's colours, which the colour-blind tell apart.
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#666666"


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """What a run wrote: a record for each line of its `metrics.jsonl`.

  Raises:
    ValueError: if there is none, or it isn't one.
  """
  path = pathlib.Path(workdir) / "metrics.jsonl"
  try:
    lines = path.read_text().splitlines()
  except FileNotFoundError as error:
    raise ValueError(f"{workdir} holds no run: no {path.name}") from error
  try:
    records = [json.loads(line) for line in lines]
    if all({"step", "kind"} <= record.keys() for record in records):
      return records
  except (ValueError, AttributeError):
    pass
  raise ValueError(f"{path}: a line is not a record of a run")


def plot_curves(records: Records, metric: str = "top1") -> "Figure":
  """Loss, a metric of EMA and raw weights, and learning rate, by step.

  Args:
    records: from `read_metrics`.
    metric: the task's best, a part of 1.
  """
  figure, (loss, best, rate) = _panels(3)
  steps = _column(records, "train", "step")
  loss.plot(steps, _column(records, "train", "loss"), ".-", ms=3, color=_GREY)
  loss.set(title="Training loss", ylabel="loss")
  evaluated = _column(records, "eval", "step")
  for name, color, style in (("ema", _BLUE, "o-"), ("raw", _ORANGE, "s--")):
    values = 100 * _column(records, "eval", f"{name}_{metric}")
    best.plot(evaluated, values, style, color=color, label=name, ms=4)
  best.set(title=f"{metric} of the validation images", ylabel="%")
  best.legend(title="weights", frameon=False)
  rates = _column(records, "train", "learning_rate")
  rate.plot(steps, rates, ".-", ms=3, color=_GREY)
  rate.set(title="Learning rate", ylabel="rate", ylim=(0, None))
  for panel in (loss, best, rate):
    panel.set_xlabel("step")
  return figure


def plot_sizes(records: Records) -> "Figure":
  """The image size of each logged step, how often each came, and its batch.

  A line of the log names the size of its last step: with `log_every_steps=1`
  these are all steps.

  Args:
    records: from `read_metrics`.
  """
  figure, (order, often, speed) = _panels(3)
  sizes = _column(records, "train", "image_size").astype(int)
  batches = _column(records, "train", "images_per_second")
  # images / s over steps / s: the batch, up to rounding.
  rates = batches.copy()
  batches = np.round(batches / _column(records, "train", "steps_per_second"))
  order.plot(_column(records, "train", "step"), sizes, ".", color=_GREY)
  order.set(title="Size drawn for a step", xlabel="step", ylabel="pixels")
  counts = Counter(sizes.tolist())
  names = [str(size) for size in sorted(counts)]
  order.set_yticks(sorted(counts))
  bars = often.bar(names, [counts[int(n)] for n in names], color=_BLUE)
  batch = [int(np.median(batches[sizes == int(n)])) for n in names]
  often.bar_label(bars, [f"{b} images" for b in batch], fontsize=8)
  often.set(title="Logged steps, and their batch", ylabel="steps")
  speed.bar(
    names,
    [float(np.median(rates[sizes == int(n)])) for n in names],
    color=_ORANGE,
  )
  # The same image sizes on both axes.
  speed.set(title="Speed (median)", ylabel="images / s")
  for panel in (often, speed):
    panel.set_xlabel("image size in pixels")
  return figure


def _column(records: Records, kind: str, name: str) -> np.ndarray:
  """One value of each record of a kind; NaN where it was not finite."""
  values = [record[name] for record in records if record["kind"] == kind]
  return np.array([np.nan if v is None else v for v in values], float)


def _panels(count: int) -> Any:
  # Not pyplot's: that keeps every figure, and a notebook would show it twice.
  from matplotlib.figure import Figure

  figure = Figure((3.6 * count, 3), layout="constrained")
  axes: Any = figure.subplots(1, count)
  for panel in axes:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    panel.set_axisbelow(True)
  return figure, axes
