"""What the page says of the run: curves, data, configuration, command."""

import datetime
import json
import shlex

from mobilevit_jax import config as config_lib
from mobilevit_jax.data import check
from mobilevit_jax.report import charts
from mobilevit_jax.report import context
from mobilevit_jax.report.markup import Child
from mobilevit_jax.report.markup import table
from mobilevit_jax.report.markup import tag

WEIGHTS = {
  "ema": "averaged weights (EMA), last step",
  "raw": "weights as trained, last step",
  "best": "averaged weights (EMA), best evaluation",
}


def curves(run: context.Run) -> Child:
  """The best metric, loss and rate over steps, and what was recorded last."""
  drawn = [
    charts.line_chart(
      name.replace("_", " "),
      [
        charts.Series("training", "train", run.curve("train", name)),
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
  return [
    tag("div", drawn, class_="charts"),
    tag(
      "p",
      "EMA: the moving average of the weights; raw: the weights themselves. "
      "Training is measured on augmented images with dropout, and its loss is "
      "the one that is minimised: its curves are not to be held against the "
      "others.",
      class_="note",
    ),
    tag("h3", "Recorded by the run"),
    _recorded(run),
  ]


def _recorded(run: context.Run) -> Child:
  task = run.setup.task
  evaluated = run.curve("evals", f"ema_{task.best}")
  if not evaluated:
    return tag("p", "No evaluation was recorded.", class_="note")
  best, _ = max(evaluated, key=lambda point: point[1])
  rows: list[list[Child]] = []
  for which, record, name in (
    ("ema", run.evals[-1], "ema"),
    ("raw", run.evals[-1], "raw"),
    ("best", run.evaluation(best), "ema"),
  ):
    chosen = "chosen" if which == run.which else None
    values = [record.get(f"{name}_{metric}") for metric in task.shown]
    loss = record.get(f"{name}_loss")
    rows.append(
      [
        tag("td", WEIGHTS[which], class_=chosen),
        f"{record['step']:,}",
        *("-" if value is None else f"{value:.2%}" for value in values),
        "-" if loss is None else f"{loss:.4f}",
      ]
    )
  return table(["weights", "step", *task.shown, "loss"], rows)


def data(run: context.Run, checked: check.Report | None) -> Child:
  """What the check found before training, if there was one."""
  if checked is None:
    fields = config_lib.flat(run.config)
    words = [
      f"--{flag}={fields[f'data.{name}']}"
      for flag, name in (
        ("data", "name"),
        ("data_dir", "dir"),
        ("train_split", "train_split"),
        ("eval_split", "eval_split"),
      )
      if fields.get(f"data.{name}")
    ]
    command = ["python", "-m", "mobilevit_jax.data", "check", *words]
    return [
      tag("p", "This run did not check its data. To do so:"),
      tag("pre", shlex.join(command)),
    ]
  total = sum(counts[0] for _, counts in checked.classes)
  classes = [
    [name, *counts, f"{counts[0] / total:.1%}" if total else "-"]
    for name, counts in checked.classes
  ]
  found = [
    [name, *counts]
    for name, counts in (("images", checked.images), *checked.findings)
  ]
  share = f"{checked.splits[0]} share"
  return [
    tag("p", f"Checked before training: {checked.balance()}."),
    tag("ul", [tag("li", text) for text in checked.warnings], class_="warnings")
    if checked.warnings
    else tag("p", "Nothing to mend was found."),
    tag(
      "div",
      tag(
        "div",
        tag("h3", "Classes"),
        table(["class", *checked.splits, share], classes),
      ),
      tag(
        "div", tag("h3", "Images"), table(["of all", *checked.splits], found)
      ),
      class_="charts",
    ),
  ]


def configuration(run: context.Run) -> Child:
  """The command of each start, and every field."""
  starts: list[Child] = []
  for record in run.starts:
    command = record.get("command")
    if isinstance(command, str):
      when = datetime.datetime.fromtimestamp(record["time"], datetime.UTC)
      text = f"{when:%Y-%m-%d %H:%M} UTC, from step {record.get('step', 0):,}"
      # Broken between words, not at the dashes in them.
      words = [[tag("span", word), " "] for word in command.split(" ")]
      starts += [tag("h3", text), tag("pre", words)]
  fields = [
    [name, json.dumps(value, ensure_ascii=False)]
    for name, value in config_lib.flat(run.config).items()
  ]
  return [
    tag("p", "The command, as it was started:") if starts else None,
    starts or tag("p", "This run did not record its command.", class_="note"),
    tag(
      "details",
      tag("summary", f"All {len(fields)} fields"),
      table(["field", "value"], fields),
    ),
  ]
