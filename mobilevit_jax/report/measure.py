"""A run's own weights on the images that it was evaluated with."""

import contextlib
import dataclasses
from typing import Any

from etils import epath
from flax import nnx
import jax
import numpy as np

from mobilevit_jax import steps
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
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
    class_names: `k` of them.
    which: the weights: `"ema"`, `"raw"` or `"best"`.
    step: of their checkpoint.
    bad_images: how many were left out.
  """

  source: sources.Source
  ids: np.ndarray
  labels: np.ndarray
  logits: np.ndarray
  class_names: tuple[str, ...]
  which: str
  step: int | None
  bad_images: int

  def name(self, row: int) -> str:
    """What a person would find an image by."""
    file, record = self.source.place(int(self.ids[row]))
    return file if record is None else f"{file}#{record}"


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
  source = sources.make_source(
    history.field("data.name"),
    history.field("data.eval_split"),
    data_dir=data_dir or history.field("data.dir"),
    prepare=False,
  )
  found = source_lib.read(workdir, which=which)
  if found.model is None or found.which is None:
    raise ValueError(f"{workdir} must be a run's folder, with checkpoints")
  graphdef, weights = nnx.split(io.build_model(found))

  @jax.jit
  def forward(weights: Any, images: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, weights)(steps.to_unit(images))

  batches = pipeline.eval_batches(
    source,
    size=history.field("eval.size"),
    batch=min(history.field("eval.batch"), len(source)),
    preset=history.field("eval.preset", "cvnets"),
    resize_size=history.field("eval.resize_size"),
    on_bad_image=history.field("data.on_bad_image", "error"),
  )
  logits, labels, masks = [], [], []
  with contextlib.closing(batches):
    for batch in batches:
      logits.append(np.asarray(forward(weights, batch["images"])))
      labels.append(batch["labels"])
      masks.append(batch["mask"])
  # Images come in order, and padding last.
  whole = np.flatnonzero(np.concatenate(masks)[: len(source)] > 0)
  if not whole.size:
    raise ValueError(f"all {len(source)} images of {source.name} are broken")
  names = found.labels or source.class_names
  width = logits[0].shape[1]
  extra = [f"class {index}" for index in range(len(names), width)]
  return Measured(
    source,
    whole,
    np.concatenate(labels)[whole],
    np.concatenate(logits)[whole],
    (*names, *extra)[:width],
    found.which,
    found.step,
    len(source) - len(whole),
  )
