"""What the page says of the run: curves, data, configuration, command."""

from collections.abc import Sequence
import datetime
import json
import shlex

from mobilevit_jax import config as config_lib
from mobilevit_jax.data import check
from mobilevit_jax.report import charts
from mobilevit_jax.report import history as history_lib
from mobilevit_jax.report import measure
from mobilevit_jax.report import statistics
from mobilevit_jax.report.markup import Child
from mobilevit_jax.report.markup import Markup
from mobilevit_jax.report.markup import section
from mobilevit_jax.report.markup import tag

WEIGHTS = {
  "ema": "averaged weights (EMA), last step",
  "raw": "weights as trained, last step",
  "best": "averaged weights (EMA), best evaluation",
}


def curves(measured: measure.Measured, history: history_lib.History) -> Markup:
  """Accuracy, loss and rate over steps, and what was recorded last."""

  def lines(metric: str) -> list[charts.Series]:
    return [
      charts.Series("training", "train", history.curve("train", metric)),
      charts.Series("raw", "raw", history.curve("evals", f"raw_{metric}")),
      charts.Series("EMA", "ema", history.curve("evals", f"ema_{metric}")),
    ]

  rate = history.curve("train", "learning_rate")
  drawn = [
    charts.line_chart(
      "Top-1",
      lines("top1"),
      form=lambda share: f"{100 * share:.3g}%",
      marked=measured.step,
    ),
    charts.line_chart(
      "Loss (nats)", lines("loss"), form="{:.3g}".format, marked=measured.step
    ),
    charts.line_chart(
      "Learning rate",
      [charts.Series("learning rate", "train", rate)],
      form="{:.2g}".format,
    ),
  ]
  about = (
    "EMA: the moving average of the weights; raw: the weights themselves. "
    "Training is measured on augmented images with dropout"
  )
  if smoothing := history.field("optim.label_smoothing", 0):
    about += f" and, in its loss, label smoothing of {smoothing}"
  about += ": its curves are not to be held against the others."
  return section(
    "curves",
    "Learning curves",
    tag("div", drawn, class_="charts"),
    tag("p", about, class_="note"),
    tag("h3", "Recorded by the run"),
    tag("div", _recorded(measured, history), class_="scroll"),
  )


def _recorded(
  measured: measure.Measured, history: history_lib.History
) -> Markup:
  if not history.evals:
    return tag("p", "No evaluation was recorded.", class_="note")
  last = history.evals[-1]
  best = max(history.evals, key=lambda one: one.get("ema_top1") or 0)
  rows = []
  for which, record, name in (
    ("ema", last, "ema"),
    ("raw", last, "raw"),
    ("best", best, "ema"),
  ):
    share, images = record.get(f"{name}_top1"), int(record.get("images") or 0)
    if share is None:
      continue
    low, high = statistics.wilson(share * images, images)
    loss = record.get(f"{name}_loss")
    rows.append(
      tag(
        "tr",
        tag("td", WEIGHTS[which]),
        tag("td", f"{record['step']:,}"),
        tag("td", f"{share:.2%}"),
        tag("td", f"{low:.1%} to {high:.1%}"),
        tag("td", "-" if loss is None else f"{loss:.4f}"),
        class_="chosen" if which == measured.which else None,
      )
    )
  head = [
    tag("th", text)
    for text in ("weights", "step", "top-1", "95% interval", "loss")
  ]
  return tag("table", tag("thead", tag("tr", head)), tag("tbody", rows))


def data(checked: check.Report | None, history: history_lib.History) -> Markup:
  """What the check found before training, if there was one."""
  if checked is None:
    options = {
      "data": history.field("data.name"),
      "data_dir": history.field("data.dir"),
      "train_split": history.field("data.train_split"),
      "eval_split": history.field("data.eval_split"),
    }
    words = [f"--{name}={value}" for name, value in options.items() if value]
    command = shlex.join(
      ["python", "-m", "mobilevit_jax.data", "check", *words]
    )
    return section(
      "data",
      "Data",
      tag("p", "This run did not check its data. To do so:"),
      tag("pre", command),
    )
  total = sum(counts[0] for _, counts in checked.classes)
  classes = [
    [name, *map(str, counts), f"{counts[0] / total:.1%}" if total else "-"]
    for name, counts in checked.classes
  ]
  found = [
    [name, *map(str, counts)]
    for name, counts in (("images", checked.images), *checked.findings)
  ]
  share = f"{checked.splits[0]} share"
  tall = " tall" if len(classes) > 30 else ""
  return section(
    "data",
    "Data",
    tag("p", f"Checked before training: {checked.balance()}."),
    tag("ul", [tag("li", text) for text in checked.warnings], class_="warnings")
    if checked.warnings
    else tag("p", "Nothing to mend was found."),
    tag(
      "div",
      tag(
        "div",
        tag("h3", "Classes"),
        tag(
          "div",
          _table(["class", *checked.splits, share], classes),
          class_=f"scroll{tall}",
        ),
      ),
      tag(
        "div",
        tag("h3", "Images"),
        tag("div", _table(["of all", *checked.splits], found), class_="scroll"),
      ),
      class_="charts",
    ),
  )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
  body = [
    tag("tr", tag("th", row[0], scope="row"), [tag("td", x) for x in row[1:]])
    for row in rows
  ]
  return tag(
    "table",
    tag("thead", tag("tr", [tag("th", text) for text in head])),
    tag("tbody", body),
  )


def configuration(history: history_lib.History) -> Markup:
  """The command of each start, and every field."""
  starts: list[Child] = []
  for record in history.starts:
    command = record.get("command")
    if isinstance(command, str):
      when = datetime.datetime.fromtimestamp(record["time"], datetime.UTC)
      text = f"{when:%Y-%m-%d %H:%M} UTC, from step {record.get('step', 0):,}"
      # Broken between words, not at the dashes in them.
      words = [[tag("span", word), " "] for word in command.split(" ")]
      starts += [tag("h3", text), tag("pre", words)]
  fields = [
    [name, json.dumps(value, ensure_ascii=False)]
    for name, value in config_lib.flat(history.config).items()
  ]
  return section(
    "configuration",
    "Configuration",
    tag("p", "The command, as it was started:") if starts else None,
    starts or tag("p", "This run did not record its command.", class_="note"),
    tag(
      "details",
      tag("summary", f"All {len(fields)} fields"),
      tag("div", _table(["field", "value"], fields), class_="scroll"),
    ),
  )
