"""A run's own weights on the images that it was evaluated with."""

import dataclasses
from typing import Any

from etils import epath
import ml_collections
import numpy as np

from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax.data import examples
from mobilevit_jax.report import history as history_lib
from mobilevit_jax.weights import io
from mobilevit_jax.weights import source as source_lib


@dataclasses.dataclass(frozen=True)
class Measured:
  """What a net said; broken images are left out.

  Attributes:
    source: the images.
    ids: their numbers in the source, int `[n]`.
    labels: their classes, int `[n]`.
    logits: float32 `[n, k]`.
    rank: how many classes come before the image's own, int `[n]`.
    class_names: `k` of them.
    which: the weights: `"ema"`, `"raw"` or `"best"`.
    step: of their checkpoint.
    bad_images: how many were left out.
  """

  source: examples.Source
  ids: np.ndarray
  labels: np.ndarray
  logits: np.ndarray
  rank: np.ndarray
  class_names: tuple[str, ...]
  which: str
  step: int | None
  bad_images: int

  def name(self, row: int) -> str:
    """What a person would find an image by."""
    return examples.located(self.source, int(self.ids[row]))


def measure(
  workdir: epath.PathLike,
  history: history_lib.History,
  *,
  which: source_lib.Which = "auto",
  data_dir: str | None = None,
) -> Measured:
  """Evaluates as the run did: its split, crop, size and batch.

  Args:
    workdir: the run's folder.
    history: from it.
    which: see `weights.source.read`.
    data_dir: where the data is, if no longer where the run found it.

  Raises:
    ValueError, OSError: if weights or data can't be read.
  """
  found = source_lib.read(workdir, which=which)
  if found.which is None:
    raise ValueError(f"{workdir} must be a run's folder, with checkpoints")
  config: Any = ml_collections.ConfigDict(history.config, type_safe=False)
  config.data.dir = data_dir or config.data.dir
  config.data.num_workers = 0  # which need flags that a command has parsed
  setup, *_ = experiment.build_evaluation(config, prepare=False)
  weights = setup.layout.replicate(steps.split(io.build_model(found))[1:])
  evaluator = evaluate.Evaluator(setup)
  columns: dict[str, list[np.ndarray]] = {}
  for batch, outputs in evaluator.rows({"net": tuple(weights)}):
    real = batch["batch_mask"] > 0
    rows = {key: batch[key][real] for key in ("ids", "labels")}
    for key, value in (rows | dict(outputs["net"])).items():
      columns.setdefault(key, []).append(value)
  whole = {key: np.concatenate(parts) for key, parts in columns.items()}
  if not len(whole["ids"]):
    raise ValueError(
      f"all {len(setup.source)} images of {setup.source.name} are broken"
    )
  names = found.labels or setup.source.class_names
  width = whole["logits"].shape[1]
  extra = [f"class {index}" for index in range(len(names), width)]
  return Measured(
    setup.source,
    whole["ids"],
    whole["labels"],
    whole["logits"],
    whole["rank"],
    (*names, *extra)[:width],
    found.which,
    found.step,
    len(setup.source) - len(whole["ids"]),
  )
