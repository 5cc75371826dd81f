"""The page: one file, which loads nothing from anywhere."""

from collections.abc import Callable, Iterator, Sequence
import datetime
import platform
from typing import Any, ClassVar, Protocol

import jax

from mobilevit_jax import __version__
from mobilevit_jax.data import check
from mobilevit_jax.report import classify
from mobilevit_jax.report import context
from mobilevit_jax.report import detect
from mobilevit_jax.report import markup
from mobilevit_jax.report import run_sections
from mobilevit_jax.report import segment

# Whatever a class or a file is called, nothing is fetched.
_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'"
)


class Predictions(Protocol):
  """What a run's net says of the images, as a task's module shows it.

  Attributes:
    template: its name: `NAME.html.j2` has a macro for each section.
  """

  template: ClassVar[str]

  def lead(self) -> tuple[str, str]:
    """The page's first sentence, but for its end: the number, and the rest."""
    ...

  def cards(self) -> list[tuple[str, str, str]]:
    """Numbers to show: what it is, the number, a remark."""
    ...

  def sections(self) -> dict[str, Any]:
    """Parts of the page by their titles, in order.

    The macro of a part has the name of its title's last word.
    """
    ...

  def lines(self) -> Iterator[Sequence[object]]:
    """Of `predictions.csv`: its head, and a line for each image."""
    ...


# By the names of `experiment.TASKS`; each takes the run, and how many pictures
# of mistakes to show. The report of a task without a row is what its run
# recorded: nothing is evaluated again.
TASKS: dict[str, Callable[[context.Run, int], Predictions]] = {
  "classify": classify.Predictions,
  "detect": detect.Predictions,
  "segment": segment.Predictions,
}


def page(
  run: context.Run,
  predictions: Predictions | None,
  checked: check.Report | None,
  *,
  now: datetime.datetime,
) -> str:
  """The whole document.

  Args:
    run: what it is about.
    predictions: of its weights, where `TASKS` has a row for its task.
    checked: the data set's check, if the run made one.
    now: what to date it by.
  """
  # Without a row in `TASKS` the page leads with what the run recorded.
  lead, cards = _lead(run), []
  if predictions is not None:
    lead, cards = predictions.lead(), predictions.cards()
  parts = [
    # The task's own sections stand between those that every run has.
    _part("Learning curves", run_sections.curves(run)),
    *(
      _part(heading, content, of_task=True)
      for heading, content in (
        predictions.sections() if predictions else {}
      ).items()
    ),
    _part("Data", run_sections.data(run, checked)),
    _part("Configuration", run_sections.configuration(run)),
  ]
  # Everything is escaped by the environment, names of files and classes too.
  template = markup.environment().get_template("page.html.j2")
  return template.render(
    # --- Head.
    title=f"{run.config['model']['name']} on {run.setup.source.name}",
    task=predictions and predictions.template,
    lead=lead,
    cards=cards,
    step=run.step,
    notes=_notes(run),
    parts=parts,
    now=now,
    versions={
      "package": __version__,
      "jax": jax.__version__,
      "python": platform.python_version(),
    },
    # The page may load nothing, wherever it is opened.
    policy=_POLICY,
  )


def _part(heading: str, content: Any, of_task: bool = False) -> dict[str, Any]:
  # An address says no more than the last word of a heading.
  anchor = heading.split()[-1].lower()
  return {
    "heading": heading,
    "anchor": anchor,
    "content": content,
    "of_task": of_task,
  }


def _lead(run: context.Run) -> tuple[str, str]:
  """What the run recorded of its best metric."""
  best = run.setup.task.best
  value = run.recorded(best)
  return ("", "Not evaluated") if value is None else (f"{value:.1%}", best)


def _notes(run: context.Run) -> list[str]:
  """Which weights and images the page is about."""
  setup = run.setup
  notes = [
    # Which of a run's three sets of weights.
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
  return notes
