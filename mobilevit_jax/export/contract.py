"""What each format's `build`, `run` and `inspect` take and give."""

from collections.abc import Callable, Mapping
import dataclasses
import importlib
import math
from typing import Any, Literal

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.export.nms import Suppression
from mobilevit_jax.models.net import Net
from mobilevit_jax.tasks import ssd

Precision = Literal["fp32", "fp16", "int8-dynamic", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8-dynamic", "int8")
Attention = Literal["int8", "float"]
ATTENTION: tuple[Attention, ...] = ("int8", "float")
Input = Literal["float32", "uint8"]
Outputs = dict[str, np.ndarray]
# From images as a file takes them, as many as it takes, to its answers.
Engine = Callable[[np.ndarray], Outputs]

# What GPU delegates take: more axes, or control flow, and they refuse a graph.
MAX_RANK = 4
_CHUNK = 8  # images at a time where the batch is open


@dataclasses.dataclass(frozen=True)
class Options:
  """What a file is to hold.

  Attributes:
    precision: of `PRECISIONS`.
    size: image side, in pixels.
    batch: images at a time; None leaves it open.
    input: `"float32"` in [0, 1], or `"uint8"` pixels.
    output: one of the head's `OUTPUTS`, or `"features"`, the stages.
    attention: type of attention's two products in an int8 file.
    nms: what the file itself suppresses overlapping boxes by; None leaves that
      to who runs it.
  """

  precision: Precision = "fp32"
  size: int = 256
  batch: int | None = 1
  input: Input = "float32"
  output: str = "logits"
  attention: Attention = "int8"
  nms: Suppression | None = None

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """Of the images, `[b, h, w, 3]`; b is 1 where it is open."""
    return (self.batch or 1, self.size, self.size, 3)


@dataclasses.dataclass(frozen=True)
class Findings:
  """What a look into a file finds.

  Attributes:
    operators: how many there are of each kind.
    rank: the most axes that a tensor has.
    notes: on how the engine takes it.
    outputs: their shapes, where the format can't be run here.
  """

  operators: Mapping[str, int]
  rank: int
  notes: tuple[str, ...] = ()
  outputs: Mapping[str, tuple[int, ...]] | None = None


class ExportError(ValueError):
  """A file that isn't as it must be, and so isn't written."""


def outputs(
  net: Net, images: jax.Array, options: Options
) -> dict[str, jax.Array]:
  """What a net's file answers, by name, to images in [0, 1]; see `Options`."""
  if options.output == "features":
    return net.features(images)
  # A head's outputs are functions of what it returns: logits to probabilities,
  # offsets to boxes.
  found = net.head.OUTPUTS[options.output](net(images))
  if not isinstance(found, dict):
    return {options.output: found}
  if options.nms is None:
    return found
  kept = ssd.detect(
    found["boxes"],
    found["scores"],
    threshold=options.nms.threshold,
    per_class=options.nms.per_class,
    most_iou=options.nms.nms_iou,
    most=options.nms.most,
  )
  return kept._asdict()


def function(
  model: Net, options: Options
) -> tuple[Callable[..., dict[str, jax.Array]], Any]:
  """What a file of uint8 images computes, `run(state, images)`; and the state.

  The model runs as it is.
  """
  graphdef, state = nnx.split(model)

  def run(state: Any, images: jax.Array) -> dict[str, jax.Array]:
    # In the file pixels become floats by the same division.
    images = images.astype(jnp.float32) / 255
    return outputs(nnx.merge(graphdef, state), images, options)

  return run, state


def output_types(
  model: Net, options: Options
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shape and type of each output, for as many images as `Options.shape`."""
  run, state = function(model, options)
  # Nothing is computed: shapes and types alone.
  images = jax.ShapeDtypeStruct(options.shape, jnp.uint8)
  return jax.eval_shape(run, state, images)


def check_graph(findings: Findings, forbidden: set[str]) -> Findings:
  """Refuses too many axes and operators that don't run everywhere."""
  found = sorted(forbidden & set(findings.operators))
  if found:
    raise ExportError(f"the graph has the operators {', '.join(found)}")
  if findings.rank > MAX_RANK:
    raise ExportError(
      f"the graph has a tensor of {findings.rank} axes, more than {MAX_RANK}"
    )
  return findings


def library(name: str, package: str, kind: str) -> Any:
  """A module of an extra, or one line that says how to get it."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(
      f"--format={kind} needs {package} (pip install 'mobilevit-jax[export]')"
    ) from error


def in_batches(run: Engine, images: np.ndarray, batch: int | None) -> Outputs:
  """Runs `images` so many at a time; the last ones are filled up with zeros."""
  # Engines have a fixed batch, or are given one of a usual size.
  batch = batch or _CHUNK
  count = math.ceil(len(images) / batch) * batch
  padded = np.zeros((count, *images.shape[1:]), images.dtype)
  padded[: len(images)] = images
  parts = [run(padded[i : i + batch]) for i in range(0, count, batch)]
  return {
    name: np.concatenate([part[name] for part in parts])[: len(images)]
    for name in parts[0]
  }
