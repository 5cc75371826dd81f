"""The page: one file, which loads nothing from anywhere."""

from collections.abc import Callable, Iterator, Sequence
import datetime
import importlib.resources
import platform
from typing import Protocol

import jax

from mobilevit_jax import __version__
from mobilevit_jax.data import check
from mobilevit_jax.report import classify
from mobilevit_jax.report import context
from mobilevit_jax.report import run_sections
from mobilevit_jax.report.markup import Child
from mobilevit_jax.report.markup import Markup
from mobilevit_jax.report.markup import tag

# Whatever a class or a file is called, nothing is fetched.
_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'"
)


class Predictions(Protocol):
  """What a run's net says of the images, as a task's module shows it."""

  def lead(self) -> Child:
    """The page's first sentence, but for its end."""
    ...

  def cards(self) -> list[tuple[str, str, str]]:
    """Numbers to show: what it is, the number, a remark."""
    ...

  def sections(self, most_mistakes: int) -> dict[str, Child]:
    """Parts of the page by their titles, in order."""
    ...

  def lines(self) -> Iterator[Sequence[object]]:
    """Of `predictions.csv`: its head, and a line for each image."""
    ...


# By the names of `experiment.TASKS`. The report of a task without a row is what
# its run recorded: nothing is evaluated again.
TASKS: dict[str, Callable[[context.Run], Predictions]] = {
  "classify": classify.Predictions
}


def page(
  run: context.Run,
  predictions: Predictions | None,
  checked: check.Report | None,
  *,
  now: datetime.datetime,
  most_mistakes: int = 24,
) -> str:
  """The whole document.

  Args:
    run: what it is about.
    predictions: of its weights, where `TASKS` has a row for its task.
    checked: the data set's check, if the run made one.
    now: what to date it by.
    most_mistakes: pictures to show.
  """
  parts = {
    "Learning curves": run_sections.curves(run),
    **(predictions.sections(most_mistakes) if predictions else {}),
    "Data": run_sections.data(run, checked),
    "Configuration": run_sections.configuration(run),
  }
  # An address says no more than the last word of a heading.
  anchors = {heading: heading.split()[-1].lower() for heading in parts}
  title = f"{run.config['model']['name']} on {run.setup.source.name}"
  body = [
    _header(run, predictions, title),
    tag(
      "nav",
      tag("div", [tag("a", h, href=f"#{a}") for h, a in anchors.items()]),
    ),
    tag(
      "main",
      [
        tag("section", tag("h2", heading), part, id=anchors[heading])
        for heading, part in parts.items()
      ],
    ),
    tag(
      "footer",
      f"Written {now:%Y-%m-%d %H:%M} UTC by mobilevit_jax {__version__}, JAX "
      f"{jax.__version__}, Python {platform.python_version()}.",
      " Every prediction is in predictions.csv beside this page."
      if predictions
      else None,
    ),
    tag("script", Markup(_resource("page.js"))),
  ]
  head = [
    tag("meta", charset="utf-8"),
    tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
    tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
    tag("title", title),
    tag("style", Markup(_resource("page.css"))),
  ]
  document = tag("html", tag("head", head), tag("body", body), lang="en")
  return f"<!doctype html>\n{document}\n"


def _resource(name: str) -> str:
  files = importlib.resources.files("mobilevit_jax.report")
  return (files / name).read_text(encoding="utf-8")


def _header(
  run: context.Run, predictions: Predictions | None, title: str
) -> Markup:
  setup, cards = run.setup, []
  lead: Child = "Not evaluated"
  if predictions is not None:
    lead, cards = predictions.lead(), predictions.cards()
  elif (value := run.recorded(setup.task.best)) is not None:
    lead = [tag("b", f"{value:.1%}"), f" {setup.task.best}"]
  notes = [
    f"Weights: {run_sections.WEIGHTS[run.which]} ({run.step:,}).",
    f"Evaluated on {setup.source.name} at {setup.size} px.",
  ]
  if run.which == "best":
    notes.append(
      "They were chosen by these same images, which flatters them a little."
    )
  if run.starts:
    first = datetime.datetime.fromtimestamp(run.starts[0]["time"], datetime.UTC)
    notes.append(f"Training began {first:%Y-%m-%d %H:%M} UTC.")
  return tag(
    "header",
    tag("h1", title),
    tag("p", lead, f", after {run.step:,} training steps.", class_="lead"),
    cards
    and tag(
      "dl",
      [
        tag("div", tag("dt", name), tag("dd", value, tag("small", about)))
        for name, value, about in cards
      ],
      class_="cards",
    ),
    tag("p", " ".join(notes), class_="note"),
  )
