"""Checksums of what a checkpoint holds, to tell what a disk did to it."""

from collections.abc import Mapping
import json
from typing import Any
import zlib

import jax
import numpy as np


def of(parts: Mapping[str, Any]) -> dict[str, int]:
  """CRC-32 of each part: a tree of arrays or of JSON's values.

  An array's values must be on every device. Shapes and names don't count: who
  reads has to know them.
  """
  return {name: _crc32(tree) for name, tree in parts.items()}


def check(sums: Mapping[str, int], parts: Mapping[str, Any]) -> None:
  """Raises `ValueError` naming a part that isn't the one summed up."""
  for name, value in of(parts).items():
    if value != sums[name]:
      raise ValueError(f"its {name} is not what was saved")


def _crc32(tree: Any) -> int:
  leaves = jax.tree.leaves(tree)
  if not any(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
    return zlib.crc32(json.dumps(tree, sort_keys=True).encode())
  value = 0
  for leaf in leaves:
    array = np.ascontiguousarray(leaf)
    value = zlib.crc32(array.view(np.uint8).data, value)
  return value
