"""From a run's folder to its report."""

from collections.abc import Iterable, Sequence
import csv
import datetime
import io
import os
import re
import shlex
import sys

from etils import epath
import jax

from mobilevit_jax import files
from mobilevit_jax.data import check
from mobilevit_jax.report import context
from mobilevit_jax.report import page
from mobilevit_jax.weights.source import Which


def write(
  workdir: epath.PathLike,
  *,
  which: Which = "auto",
  data_dir: str | None = None,
  most_mistakes: int = 24,
) -> epath.Path:
  """Writes `WORKDIR/report/index.html`, and what was predicted beside it.

  Args:
    workdir: the run's folder, local or `gs://`.
    which: the weights; see `weights.source.read_weights`.
    data_dir: where the data is, if no longer where the run found it.
    most_mistakes: pictures of mistakes to show.

  Returns:
    The page's path.

  Raises:
    ValueError, OSError: if the run or its data can't be read.
  """
  run = context.read(workdir, which=which, data_dir=data_dir)
  # A task without a row has a page of what its run recorded.
  kind = page.TASKS.get(run.config["task"]["name"])
  predictions = kind and kind(run, most_mistakes)
  text = page.page(
    run,
    predictions,
    _checked(epath.Path(workdir) / check.FILE),
    now=datetime.datetime.now(datetime.UTC),
  )
  folder = epath.Path(workdir) / "report"
  folder.mkdir(parents=True, exist_ok=True)
  if predictions:
    # Beside the page, and first: the page links to it.
    lines = _printable(_csv(predictions.lines()))
    files.write_text(folder / "predictions.csv", lines)
  files.write_text(folder / "index.html", _printable(text))
  return folder / "index.html"


def _printable(text: str) -> str:
  """Without the bytes of file names that are no UTF-8."""
  return text.encode("utf-8", "backslashreplace").decode("utf-8")


def after_training(workdir: epath.PathLike) -> None:
  """Writes the report of a run that is done, and says where it is.

  The run is saved: whatever goes wrong here is said, and no more. With several
  processes it is left to the command, as reading checkpoints takes them all.
  """
  # What a user can copy, whatever the folder is called.
  again = shlex.join(
    ["python", "-m", "mobilevit_jax.report", os.fspath(workdir)]
  )
  if jax.process_count() > 1:
    # All come here; one says it.
    if jax.process_index() == 0:
      print(f"report: of a run of several processes, to be made by {again}")
    return
  # Any error: the run itself has succeeded, and its exit code says so.
  try:
    path = write(workdir)
  except Exception as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    print(
      f"warning: the run is done, but its report failed: {reason}. "
      f"To try again: {again}",
      file=sys.stderr,
    )
  else:
    print(f"report: {path}", flush=True)


def _checked(path: epath.Path) -> check.Report | None:
  if not path.exists():
    return None
  try:
    return check.load(path)
  except (ValueError, TypeError, KeyError):
    return None  # of another version: the rest of the page stands


def _csv(lines: Iterable[Sequence[object]]) -> str:
  text = io.StringIO()
  rows = csv.writer(text, lineterminator="\n")
  rows.writerows([_harmless(str(cell)) for cell in line] for line in lines)
  return text.getvalue()


def _harmless(cell: str) -> str:
  """A name that no spreadsheet takes for a formula, whoever chose it.

  OWASP, "CSV Injection": a cell that begins with one of these is computed, and
  one that begins with an apostrophe is text. Numbers may have their sign.
  """
  number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell)
  computed = cell.startswith(("=", "+", "-", "@", "\t", "\r"))
  return f"'{cell}" if computed and not number else cell
