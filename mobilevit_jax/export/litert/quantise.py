"""Nets of eight bits: calibration, and what each layer costs."""

from collections.abc import Callable, Mapping
import dataclasses
import re

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export.litert import flatbuffer
from mobilevit_jax.export.litert import int8
from mobilevit_jax.export.litert import writer

# Writes a net, its input included, with any writer of LiteRT graphs.
Net = Callable[[writer.LiteRTOps], Mapping[str, flatbuffer.Ref]]

_RARE = 0.05
_PRODUCTS = re.compile(r"/attention/(scores|mix)$")
_PARTS = re.compile(
  r"/(conv|linear|silu|relu|split|heads|tokens|width"
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
  # A file whose outputs are all of its intermediate results.
  data = ops.serialize(ops.results, "")
  engine = flatbuffer.interpreter(data).get_signature_runner()
  ends: dict[str, list[tuple[float, float]]] = {
    name: [] for name in ops.results
  }
  for image in images:
    for name, value in engine(images=image[None]).items():
      ends[name].append((value.min(), value.max()))
  ranges = {"images": (0.0, 1.0)}
  for name, values in ends.items():
    low, high = np.sort(values, axis=0).T
    if not np.all(np.isfinite((low, high))):
      raise contract.ExportError(
        f"{name} is NaN or infinite for an image of the calibration"
      )
    # 5 % of the images may be cut at either end: clipped outliers cost less
    # than coarse steps for all.
    ranges[name] = (
      float(np.quantile(low, _RARE)),
      float(np.quantile(high, 1 - _RARE)),
    )
  return ranges


def not_products(name: str) -> bool:
  """Whether an operator is other than attention's products QK and PV."""
  return not _PRODUCTS.search(name)


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

  # The first pass collects layers' names, in order, by answering yes to all.
  def note(name: str) -> bool:
    names.setdefault(_layer(name))
    return True

  net(int8.Int8Ops(ranges, note))
  exact = _outputs(net, writer.LiteRTOps(), images)
  errors = []
  # Then one file a layer: that layer in eight bits, the others in float32.
  for layer in names:
    alone = int8.Int8Ops(ranges, lambda name, own=layer: _layer(name) == own)
    found = _outputs(net, alone, images)
    errors.append(LayerError(layer, relative_error(found, exact)))
  return sorted(errors, key=lambda item: -item.error)


def _layer(name: str) -> str:
  return _PARTS.sub("", name)


def _outputs(net: Net, ops: writer.LiteRTOps, images: np.ndarray) -> np.ndarray:
  data = ops.serialize(net(ops), "")
  engine = flatbuffer.interpreter(data).get_signature_runner()
  answers = [engine(images=image[None]) for image in images]
  return np.concatenate([v.ravel() for a in answers for v in a.values()])


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
  """Root mean square of the difference, as a share of the exact values'."""
  return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
