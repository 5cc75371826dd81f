"""The page: one file, which loads nothing from anywhere."""

import datetime
import importlib.resources
import platform

import jax
import numpy as np

from mobilevit_jax import __version__
from mobilevit_jax.data import check
from mobilevit_jax.report import history as history_lib
from mobilevit_jax.report import measure
from mobilevit_jax.report import run_sections
from mobilevit_jax.report import sections
from mobilevit_jax.report import statistics
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
      run_sections.curves(measured, history),
      sections.per_class(counts, names),
      sections.confusion(counts, names),
      sections.mistakes(measured, probabilities, most_mistakes),
      sections.calibration(measured, probabilities),
      run_sections.data(checked, history),
      run_sections.configuration(history),
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
    top5 = float((measured.rank < 5).mean())
    cards.insert(1, _card("top-5", f"{top5:.1%}", "right among five"))
  notes = [
    f"Weights: {run_sections.WEIGHTS[measured.which]}"
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
