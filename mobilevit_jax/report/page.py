"""The page: one file, which loads nothing from anywhere."""

from collections.abc import Sequence
import datetime
import importlib.resources
import json
import platform

import jax
import numpy as np

from mobilevit_jax import __version__
from mobilevit_jax.data import check
from mobilevit_jax.report import charts
from mobilevit_jax.report import history as history_lib
from mobilevit_jax.report import measure
from mobilevit_jax.report import sections
from mobilevit_jax.report import statistics
from mobilevit_jax.report.markup import Child
from mobilevit_jax.report.markup import Markup
from mobilevit_jax.report.markup import tag

_PARTS = {
  "curves": "Learning curves",
  "classes": "Classes",
  "confusion": "Confusion",
  "mistakes": "Worst mistakes",
  "calibration": "Calibration",
  "data": "Data",
  "configuration": "Configuration",
}
_WEIGHTS = {
  "ema": "averaged weights (EMA), last step",
  "raw": "weights as trained, last step",
  "best": "averaged weights (EMA), best evaluation",
}
# Whatever a class or a file is called, nothing is fetched.
_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'"
)


def page(
  measured: measure.Measured,
  history: history_lib.History,
  checked: check.Report | None,
  *,
  now: datetime.datetime,
  most_mistakes: int = 24,
) -> str:
  """The whole document.

  Args:
    measured: what the net said.
    history: of the run.
    checked: the data set's check, if the run made one.
    now: what to date it by.
    most_mistakes: pictures to show.
  """
  probabilities = statistics.softmax(measured.logits)
  said = measured.logits.argmax(axis=1)
  names = measured.class_names
  counts = statistics.confusion(measured.labels, said, len(names))
  model = _model_name(history)
  links = [tag("a", text, href=f"#{name}") for name, text in _PARTS.items()]
  body = [
    _header(measured, history, counts, probabilities, model),
    tag("nav", tag("div", links)),
    tag(
      "main",
      _curves(measured, history),
      sections.per_class(counts, names),
      sections.confusion(counts, names),
      sections.mistakes(measured, probabilities, most_mistakes),
      sections.calibration(measured, probabilities),
      _data(checked, history),
      _configuration(history),
    ),
    tag(
      "footer",
      f"Written {now:%Y-%m-%d %H:%M} UTC by mobilevit_jax {__version__}, JAX "
      f"{jax.__version__}, Python {platform.python_version()}. Every "
      "prediction is in predictions.csv beside this page.",
    ),
    tag("script", Markup(_resource("page.js"))),
  ]
  head = [
    tag("meta", charset="utf-8"),
    tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
    tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
    tag("title", f"{model} on {measured.source.name}"),
    tag("style", Markup(_resource("page.css"))),
  ]
  document = tag("html", tag("head", head), tag("body", body), lang="en")
  return f"<!doctype html>\n{document}\n"


def _resource(name: str) -> str:
  files = importlib.resources.files("mobilevit_jax.report")
  return (files / name).read_text(encoding="utf-8")


def _model_name(history: history_lib.History) -> str:
  name = str(history.field("model.name", "model"))
  family, _, variant = name.partition("_")
  if family != "mobilevit":
    return name
  return f"MobileViT-{variant.upper()}"


def _header(
  measured: measure.Measured,
  history: history_lib.History,
  counts: np.ndarray,
  probabilities: np.ndarray,
  model: str,
) -> Markup:
  total, right = int(counts.sum()), int(np.trace(counts))
  low, high = statistics.wilson(right, total)
  support = counts.sum(axis=1)
  present = int((support > 0).sum())
  commonest = int(support.argmax())
  recall = statistics.per_class(counts).recall[support > 0].mean()
  found = statistics.calibration(probabilities, measured.labels)
  cards = [
    _card("top-1", f"{right / total:.1%}", f"95%: {low:.1%} to {high:.1%}"),
    _card("mean of classes", f"{recall:.1%}", "each counted alike"),
    _card(
      "guessing",
      f"{support[commonest] / total:.1%}",
      f"always {measured.class_names[commonest]}",
    ),
    _card("calibration error", f"{found.ece:.3f}", "0 is perfect"),
    _card("evaluated", f"{total:,}", f"images of {present} classes"),
  ]
  if counts.shape[0] > 5:
    top5 = statistics.top_k(measured.logits, measured.labels, 5)
    cards.insert(1, _card("top-5", f"{top5:.1%}", "right among five"))
  notes = [
    f"Weights: {_WEIGHTS[measured.which]}"
    + (f" ({measured.step:,})." if measured.step is not None else "."),
    f"Evaluated on {measured.source.name} at {history.field('eval.size')} px.",
  ]
  if measured.which == "best":
    notes.append(
      "They were chosen by these same images, which flatters them a little."
    )
  if measured.bad_images:
    notes.append(f"{measured.bad_images} broken images were left out.")
  if history.starts:
    first = datetime.datetime.fromtimestamp(
      history.starts[0]["time"], datetime.UTC
    )
    notes.append(f"Training began {first:%Y-%m-%d %H:%M} UTC.")
  return tag(
    "header",
    tag("h1", f"{model} on {measured.source.name}"),
    tag(
      "p",
      tag("b", f"{right / total:.1%}"),
      f" of {total:,} images in {present} classes are classified right "
      f"(95% interval {low:.1%} to {high:.1%}), after ",
      f"{measured.step:,} training steps." if measured.step else "training.",
      class_="lead",
    ),
    tag("dl", cards, class_="cards"),
    tag("p", " ".join(notes), class_="note"),
  )


def _card(name: str, value: str, about: str) -> Markup:
  return tag("div", tag("dt", name), tag("dd", value, tag("small", about)))


def _curves(measured: measure.Measured, history: history_lib.History) -> Markup:
  def lines(metric: str) -> list[charts.Series]:
    return [
      charts.Series("training", "train", history.curve("train", metric)),
      charts.Series("raw", "raw", history.curve("evals", f"raw_{metric}")),
      charts.Series("EMA", "ema", history.curve("evals", f"ema_{metric}")),
    ]

  rate = history.curve("train", "learning_rate")
  drawn = [
    charts.line_chart(
      "Top-1", lines("top1"), form="{:.0%}".format, marked=measured.step
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
  return sections.section(
    "curves",
    _PARTS["curves"],
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
        tag("td", _WEIGHTS[which]),
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


def _data(checked: check.Report | None, history: history_lib.History) -> Markup:
  if checked is None:
    command = (
      "python -m mobilevit_jax.prepare_data check "
      f"--data={history.field('data.name')} --data_dir=..."
    )
    return sections.section(
      "data",
      _PARTS["data"],
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
  return sections.section(
    "data",
    _PARTS["data"],
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


def _configuration(history: history_lib.History) -> Markup:
  starts: list[Child] = []
  for record in history.starts:
    command = record.get("command")
    if isinstance(command, str):
      when = datetime.datetime.fromtimestamp(record["time"], datetime.UTC)
      text = f"{when:%Y-%m-%d %H:%M} UTC, from step {record.get('step', 0):,}"
      starts += [tag("h3", text), tag("pre", command)]
  fields = [
    [name, json.dumps(value, ensure_ascii=False)]
    for name, value in history_lib.flat(history.config).items()
  ]
  return sections.section(
    "configuration",
    _PARTS["configuration"],
    tag("p", "The command, as it was started:") if starts else None,
    starts or tag("p", "This run did not record its command.", class_="note"),
    tag(
      "details",
      tag("summary", f"All {len(fields)} fields"),
      tag("div", _table(["field", "value"], fields), class_="scroll"),
    ),
  )
