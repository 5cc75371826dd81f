"""What the page says of the run, as `run.html.j2` shows it."""

import datetime
import json
import shlex
from typing import Any

from mobilevit_jax.config import flat_fields
from mobilevit_jax.data import check
from mobilevit_jax.report import charts
from mobilevit_jax.report import context

WEIGHTS = {
  "ema": "averaged weights (EMA), last step",
  "raw": "weights as trained, last step",
  "best": "averaged weights (EMA), best evaluation",
}


def curves(run: context.Run) -> dict[str, Any]:
  """The best metric, loss and rate over steps, and what was recorded last."""
  drawn = [
    charts.line_chart(
      name.replace("_", " "),
      [
        charts.Series("training", "train", run.curve("train", name)),
        # Evaluations have two sets of weights, training but one.
        charts.Series("raw", "raw", run.curve("evals", f"raw_{name}")),
        charts.Series("EMA", "ema", run.curve("evals", f"ema_{name}")),
      ],
      form=form,
      marked=run.step,
    )
    for name, form in (
      (run.setup.task.best, lambda share: f"{100 * share:.3g}%"),
      ("loss", "{:.3g}".format),
      ("learning_rate", "{:.2g}".format),
    )
  ]
  return {
    "charts": [chart for chart in drawn if chart],
    "head": ["weights", "step", *_recorded_metrics(run)],
    "recorded": _recorded(run),
  }


def _recorded_metrics(run: context.Run) -> list[str]:
  """The task's metrics, and the loss where evaluation has one."""
  return [
    *run.setup.task.shown,
    *["loss"] * bool(run.curve("evals", "ema_loss")),
  ]


def _recorded(run: context.Run) -> list[dict[str, Any]]:
  """A row for the last and the best evaluation; empty if there was none."""
  task = run.setup.task
  # The metric of the averaged weights decides, as in the run.
  evaluated = run.curve("evals", f"ema_{task.best}")
  if not evaluated:
    return []
  # Of equal values the first: `max` keeps it.
  best, _ = max(evaluated, key=lambda point: point[1])
  rows = []
  # Two rows for the last evaluation, one for the best.
  for which, record, name in (
    ("ema", run.evals[-1], "ema"),
    ("raw", run.evals[-1], "raw"),
    ("best", run.evaluation(best), "ema"),
  ):
    texts = []
    for metric in _recorded_metrics(run):
      value = record.get(f"{name}_{metric}")
      form = "{:.4f}" if metric == "loss" else "{:.2%}"
      texts.append("-" if value is None else form.format(value))
    rows.append(
      {
        "chosen": which == run.which,
        "cells": [WEIGHTS[which], f"{record['step']:,}", *texts],
      }
    )
  return rows


def data(run: context.Run, checked: check.Report | None) -> dict[str, Any]:
  """What the check found before training, or the command that checks."""
  if checked is None:
    fields = flat_fields(run.config)
    words = [
      f"--{flag}={fields[f'data.{name}']}"
      for flag, name in (
        ("data", "name"),
        ("data_dir", "dir"),
        ("train_split", "train_split"),
        ("eval_split", "eval_split"),
      )
      # Only fields that the configuration sets.
      if fields.get(f"data.{name}")
    ]
    command = ["python", "-m", "mobilevit_jax.data", "check", *words]
    return {"checked": False, "command": shlex.join(command)}
  # Shares are of the training set, the first of the splits.
  total = sum(counts[0] for _, counts in checked.classes)
  return {
    "checked": True,
    "balance": checked.balance(),
    "warnings": checked.warnings,
    "class_head": ["class", *checked.splits, f"{checked.splits[0]} share"],
    "classes": [
      [name, *counts, f"{counts[0] / total:.1%}" if total else "-"]
      for name, counts in checked.classes
    ],
    "image_head": ["of all", *checked.splits],
    "images": [
      [name, *counts]
      for name, counts in (("images", checked.images), *checked.findings)
    ],
  }


def configuration(run: context.Run) -> dict[str, Any]:
  """The command of each start, and every field."""
  starts = []
  for record in run.starts:
    command = record.get("command")
    if isinstance(command, str):
      # UTC: a run may go on in another place.
      when = datetime.datetime.fromtimestamp(record["time"], datetime.UTC)
      text = f"{when:%Y-%m-%d %H:%M} UTC, from step {record.get('step', 0):,}"
      starts.append((text, command.split(" ")))
  return {
    "starts": starts,
    "fields": [
      [name, json.dumps(value, ensure_ascii=False)]
      for name, value in flat_fields(run.config).items()
    ],
  }
