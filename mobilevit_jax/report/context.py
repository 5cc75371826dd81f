"""A run: what it left about itself, and its weights to evaluate once more."""

from collections.abc import Iterator, Sequence
import dataclasses
import json
import math
from typing import Any

from etils import epath
import ml_collections

from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import files
from mobilevit_jax import steps
from mobilevit_jax.config import CONFIG_FILE
from mobilevit_jax.config import ForeignFileError
from mobilevit_jax.tasks.task import Rows
from mobilevit_jax.weights import io
from mobilevit_jax.weights.source import read_weights
from mobilevit_jax.weights.source import Which

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
  """A run so far.

  Attributes:
    config: the configuration.
    train: lines of `metrics.jsonl` on training, by step.
    evals: its lines on evaluation, by step.
    starts: lines of `starts.jsonl`: time in seconds since 1970, step, command.
    setup: its task, and the images that it was evaluated with.
    weights: parameters and BatchNorm statistics.
    which: the weights: `"ema"`, `"raw"` or `"best"`.
    step: of their checkpoint.
    class_names: of the net's classes.
  """

  config: dict[str, Any]
  train: list[Record]
  evals: list[Record]
  starts: list[Record]
  setup: experiment.Evaluation
  weights: evaluate.Weights
  which: str
  step: int
  class_names: Sequence[str]

  def curve(self, kind: str, name: str) -> list[tuple[float, float]]:
    """(step, value) wherever a value was recorded; `kind`: train, evals."""
    return [
      (float(record["step"]), float(record[name]))
      for record in getattr(self, kind)
      if _is_number(record.get(name))
    ]

  def evaluation(self, step: float) -> Record:
    """What was recorded of the evaluation after a step, or nothing."""
    # A step that was evaluated again after a restart: the last one counts.
    found = [record for record in self.evals if record["step"] == step]
    return found[-1] if found else {}

  def recorded(self, metric: str) -> float | None:
    """The metric of these weights, as the run's own evaluation found it."""
    # Averaged weights are what the best checkpoint holds, too.
    prefix = "raw" if self.which == "raw" else "ema"
    return self.evaluation(self.step).get(f"{prefix}_{metric}")

  def rows(self) -> Iterator[Rows]:
    """Of each batch what is known of the images and what the net says of them.

    Broken images are left out.
    """
    # The evaluation of the run itself, so the page's numbers are the log's.
    evaluator = evaluate.Evaluator(self.setup)
    for batch, outputs in evaluator.rows({"net": self.weights}):
      real = batch["batch_mask"] > 0
      about = {k: rows[real] for k, rows in batch.items() if k != "images"}
      yield about | dict(outputs["net"])


def read(
  workdir: epath.PathLike,
  *,
  which: Which = "auto",
  data_dir: str | None = None,
) -> Run:
  """Reads what is there, and opens the images of the run's evaluation.

  Args:
    workdir: the run's folder.
    which: see `weights.source.read_weights`.
    data_dir: where the data is, if no longer where the run found it.

  Raises:
    ValueError, OSError: if there is no run, or it or its data can't be read.
  """
  folder = epath.Path(workdir)
  if not (folder / "checkpoints").exists():
    raise ValueError(f"{workdir} must be a run's folder, with checkpoints")
  # --- The weights, and the configuration that the run was started with.
  found = read_weights(workdir, which=which)
  config = json.loads((folder / CONFIG_FILE).read_text())
  fields: Any = ml_collections.ConfigDict(config, type_safe=False)
  try:
    fields.data.dir = data_dir or fields.data.dir
    # This process is no worker's parent: the report reads images itself.
    fields.data.num_workers = 0  # which need flags that a command has parsed
    # --- The same data, transform and batch as the run's own evaluation.
    setup, *_ = experiment.build_evaluation(fields, prepare=False)
  except (AttributeError, KeyError, TypeError) as error:
    raise ForeignFileError(
      f"{folder / CONFIG_FILE} lacks a field, or has one of another "
      f"kind: {str(error).splitlines()[0]}"
    ) from error
  # --- A net of the weights' own fields: the configuration may say a source of
  # weights instead.
  params, stats = setup.layout.replicate(steps.split(io.build_model(found))[1:])
  names = found.labels or setup.source.class_names
  # A net may have spare classes, which have numbers for names.
  numbers = range(len(names), config["model"]["num_classes"])
  metrics = [*_lines(folder / "metrics.jsonl", "step")]
  return Run(
    config,
    [record for record in metrics if record.get("kind") == "train"],
    [record for record in metrics if record.get("kind") == "eval"],
    [*_lines(folder / "starts.jsonl", "time")],
    setup,
    (params, stats),
    found.which or which,
    found.step or 0,
    [*names, *(f"class {number}" for number in numbers)],
  )


def _lines(path: epath.Path, number: str) -> Iterator[Record]:
  """The file's whole lines; a run that was killed may leave half of one."""
  for line in files.read_lines(path):
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(record, dict) and _is_number(record.get(number)):
      yield record


def _is_number(value: object) -> bool:
  return isinstance(value, int | float) and math.isfinite(value)
