"""Nets of eight bits: calibration, the file, and what each layer costs."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import re
from typing import Any

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export.litert import int8
from mobilevit_jax.export.litert import writer
from mobilevit_jax.export.litert.flatbuffer import Ref

# Writes a net, its input included, with any writer of LiteRT graphs.
Net = Callable[[writer.LiteRTOps], Mapping[str, Ref]]

_RARE = 0.05
_PRODUCTS = re.compile(r"/attention/(scores|mix)$")
_PARTS = re.compile(
  r"/(conv|linear|silu|split|heads|tokens|width"
  r"|rows|columns|patches|pixels|image)$"
)


def calibrate(net: Net, images: np.ndarray) -> int8.Ranges:
  """The range of each activation over images, whatever their order.

  An image's own range is that of all its values. Over the images it is the
  `_RARE` quantile of their ends, which leaves out what only odd ones reach, and
  so is finer for all others.

  Args:
    net: writes the net, for a batch of one image.
    images: as the net takes them, `[n, h, w, 3]`; a few hundred of the
      training set.

  Returns:
    For each operator's result, the least and the largest value.

  Raises:
    ExportError: if a value is NaN or infinite.
  """
  ops = writer.LiteRTOps()
  net(ops)
  engine = Engine(ops.serialize(ops.results, ""))
  ends: dict[str, list[tuple[float, float]]] = {
    name: [] for name in ops.results
  }
  for image in images:
    for name, value in engine(image[None]).items():
      ends[name].append((value.min(), value.max()))
  ranges = {"images": (0.0, 1.0)}
  for name, values in ends.items():
    low, high = np.sort(values, axis=0).T
    if not np.all(np.isfinite((low, high))):
      raise contract.ExportError(
        f"{name} is NaN or infinite for an image of the calibration"
      )
    ranges[name] = (
      float(np.quantile(low, _RARE)),
      float(np.quantile(high, 1 - _RARE)),
    )
  return ranges


def write(
  net: Net,
  ranges: int8.Ranges,
  *,
  metadata: str = "",
  attention: contract.Attention = "int8",
) -> bytes:
  """The int8 file; `attention` is the type of the products QK and PV."""

  def select(name: str) -> bool:
    return attention == "int8" or not _PRODUCTS.search(name)

  ops = int8.Int8Ops(ranges, select)
  return ops.serialize(net(ops), metadata)


def write_dynamic(net: Net, *, metadata: str = "") -> bytes:
  """The file with int8 weights and float32 activations; no calibration."""
  ops = int8.DynamicOps()
  return ops.serialize(net(ops), metadata)


@dataclasses.dataclass(frozen=True)
class LayerError:
  """What one layer costs.

  Attributes:
    layer: its name in the file; its activation is part of it.
    error: of the net's outputs when this layer alone is of eight bits, as a
      share of their size (root mean square).
  """

  layer: str
  error: float


def layer_errors(
  net: Net, ranges: int8.Ranges, images: np.ndarray
) -> list[LayerError]:
  """Each layer of eight bits by itself in a float32 net, the worst first."""
  names: dict[str, None] = {}  # in the net's order

  def note(name: str) -> bool:
    names.setdefault(_layer(name))
    return True

  net(int8.Int8Ops(ranges, note))
  exact = _outputs(net, writer.LiteRTOps(), images)
  errors = []
  for layer in names:
    alone = functools.partial(_belongs, layer)
    found = _outputs(net, int8.Int8Ops(ranges, alone), images)
    errors.append(LayerError(layer, relative_error(found, exact)))
  return sorted(errors, key=lambda item: -item.error)


def _belongs(layer: str, name: str) -> bool:
  return _layer(name) == layer


def _layer(name: str) -> str:
  return _PARTS.sub("", name)


def _outputs(net: Net, ops: writer.LiteRTOps, images: np.ndarray) -> np.ndarray:
  engine = Engine(ops.serialize(net(ops), ""))
  answers = [engine(image[None]) for image in images]
  return np.concatenate([v.ravel() for a in answers for v in a.values()])


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
  """Root mean square of the difference, as a share of the exact values'."""
  return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


class Engine:
  """A LiteRT file in its interpreter, on one thread, so answers repeat."""

  def __init__(self, data: bytes):
    module = contract.library(
      "ai_edge_litert.interpreter", "ai-edge-litert", "litert"
    )
    interpreter = module.Interpreter(model_content=data, num_threads=1)
    self._runner: Any = interpreter.get_signature_runner()

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs for one batch."""
    return self._runner(images=images)
