"""Weights and images that numpy alone determines, and the logits they give.

    JAX_PLATFORMS=cpu python -m tests.golden

writes `golden.json` anew. That is right only after a change that was meant to
alter the network, and after `make parity` has agreed with it.
"""

import json
import pathlib
from typing import Any
import zlib

from flax import nnx
import jax
import numpy as np

from mobilevit_jax import models
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import net
from mobilevit_jax.weights import trees

FILE = pathlib.Path(__file__).with_name("golden.json")
SIZES = ((64, 64), (96, 160), (160, 160))  # last maps 2x2, 3x5, 5x5
CLASSES = 8


def model_of(name: str) -> Any:
  """A net whose every tensor is drawn by PCG64, seeded by its public name."""
  model = models.abstract_model(name, num_classes=CLASSES)
  graphdef, state = nnx.split(model)
  values = {
    path: _draw(net.public_name(path), leaf.shape)
    for path, leaf in trees.flat_model(model).items()
  }
  return nnx.merge(graphdef, trees.replace(nnx.to_pure_dict(state), values))


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
  leaf = name.rsplit("/", 1)[-1]
  if leaf == "var":
    value = rng.uniform(0.2, 0.9, shape)
  elif leaf == "kernel":
    value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
  else:
    value = 0.2 * rng.standard_normal(shape) + (leaf == "scale")
  return value.astype(np.float32)


def images_of(height: int, width: int) -> np.ndarray:
  """Two images of coloured patches, `[2, h, w, 3]` in [0, 1]."""
  rng = np.random.Generator(np.random.PCG64([height, width]))
  patches = rng.random((2, 6, 6, 3)) * rng.random((2, 1, 1, 3))
  rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
  return patches[:, rows][:, :, columns].astype(np.float32)


def logits_of(model: Any, size: tuple[int, int]) -> np.ndarray:
  """`[2, CLASSES]`."""
  graphdef, state = nnx.split(model)
  forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
  return np.asarray(forward(state, images_of(*size)))


def main() -> None:
  golden = {
    name: {
      f"{size[0]}x{size[1]}": logits_of(model_of(name), size).tolist()
      for size in SIZES
    }
    for name in mobilevit.VARIANTS
  }
  FILE.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
  main()
