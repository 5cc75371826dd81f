"""Nets of eight bits: calibration, the file, and what each layer costs."""

from collections.abc import Callable, Mapping
import dataclasses
import re
from typing import Any

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export import litert_graph
from mobilevit_jax.export import litert_int8
from mobilevit_jax.export.litert_file import Ref

# Writes a net, its input included, with any writer of LiteRT graphs.
Net = Callable[[litert_graph.LiteRTOps], Mapping[str, Ref]]

_PRODUCTS = re.compile(r"/attention/(scores|mix)$")
_PARTS = re.compile(
  r"/(conv|linear|silu|split|heads|tokens|width"
  r"|rows|columns|patches|pixels|image)$"
)


def calibrate(net: Net, images: np.ndarray) -> litert_int8.Ranges:
  """The range of each activation over images, whatever their order.

  Args:
    net: writes the net.
    images: as the net takes them, `[n, h, w, 3]`; a few hundred of the
      training set.

  Returns:
    For each operator's result, the least and the largest value.
  """
  ops = litert_graph.LiteRTOps()
  net(ops)
  results = dict(ops.results)
  engine = Engine(ops.serialize(results, ""))
  low = dict.fromkeys(results, np.inf)
  high = dict.fromkeys(results, -np.inf)
  for outputs in map(engine, engine.batches(images)):
    for name, value in outputs.items():
      low[name] = min(low[name], float(value.min()))
      high[name] = max(high[name], float(value.max()))
  ranges = {name: (low[name], high[name]) for name in results}
  return {"images": (0.0, 1.0), **ranges}


def write(
  net: Net,
  ranges: litert_int8.Ranges,
  *,
  metadata: str = "",
  attention: contract.Attention = "int8",
) -> bytes:
  """The int8 file; `attention` is the type of the products QK and PV."""

  def select(name: str) -> bool:
    return attention == "int8" or not _PRODUCTS.search(name)

  ops = litert_int8.Int8Ops(ranges, select)
  return ops.serialize(net(ops), metadata)


def write_dynamic(net: Net, *, metadata: str = "") -> bytes:
  """The file with int8 weights and float32 activations; no calibration."""
  ops = litert_int8.DynamicOps()
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
  net: Net, ranges: litert_int8.Ranges, images: np.ndarray
) -> list[LayerError]:
  """Each layer of eight bits by itself in a float32 net, the worst first."""
  names: dict[str, None] = {}  # in the net's order

  def note(name: str) -> bool:
    names.setdefault(_layer(name))
    return True

  net(litert_int8.Int8Ops(ranges, note))
  exact = _outputs(net, litert_graph.LiteRTOps(), images)
  errors = []
  for layer in names:
    ops = litert_int8.Int8Ops(ranges, lambda name: _layer(name) == layer)
    found = _outputs(net, ops, images)
    errors.append(LayerError(layer, relative_error(found, exact)))
  return sorted(errors, key=lambda item: -item.error)


def _layer(name: str) -> str:
  return _PARTS.sub("", name)


def _outputs(
  net: Net, ops: litert_graph.LiteRTOps, images: np.ndarray
) -> np.ndarray:
  engine = Engine(ops.serialize(net(ops), ""))
  return np.concatenate(
    [
      value.ravel()
      for outputs in map(engine, engine.batches(images))
      for value in outputs.values()
    ]
  )


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
    details = self._runner.get_input_details()["images"]
    self._batch = int(details["shape"][0])

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs for one batch."""
    return self._runner(images=images)

  def batches(self, images: np.ndarray) -> list[np.ndarray]:
    """The images in the file's batches; the last may repeat its last image."""
    count = -len(images) % self._batch
    filled = np.concatenate([images, np.repeat(images[-1:], count, axis=0)])
    return np.split(filled, len(filled) // self._batch)
