"""A file's answers beside those of the model in JAX."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.data.sources import files
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import contract
from mobilevit_jax.models.net import Net

# Largest difference from JAX's logits.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
# Least share of images that keep their class, where numbers have eight bits.
MIN_AGREEMENT = 0.9
# A folder may hold a million; these are enough to see an error.
MAX_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class Comparison:
  """How far a file is from JAX.

  Attributes:
    images: how many were compared.
    difference: the largest, of logits or log-probabilities; of features, as a
      share of the stage's largest value where that is above 1.
    agreement: share of images whose likeliest class is JAX's; of features, by
      the model's own classifier.
  """

  images: int
  difference: float
  agreement: float


def built_in_images(size: int, count: int = 8, seed: int = 0) -> np.ndarray:
  """Coloured squares, uint8 `[count, size, size, 3]`, always the same."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
  index = np.arange(size) * 8 // size
  return coarse[:, index][:, :, index]


def read_images(
  paths: Sequence[pathlib.Path], crop: presets.Crop
) -> np.ndarray:
  """uint8 `[n, size, size, 3]` of the images under `paths`, cropped.

  Of more than `MAX_IMAGES`, so many, evenly spread over their sorted names.

  Raises:
    ValueError, OSError: if one can't be read, or there is none.
  """
  found = files.find_images(paths)
  count = min(len(found), MAX_IMAGES)
  chosen = [found[i * len(found) // count] for i in range(count)]
  source = files.FileSource(chosen)  # it refuses what is no regular file
  images = [source[index].image for index in range(count)]
  return np.stack(
    [crop(image, str(path)) for image, path in zip(images, chosen, strict=True)]
  )


def answers_of_jax(
  model: Net, images: np.ndarray, output: str = "logits"
) -> contract.Outputs:
  """What a file of uint8 images has to answer; the model runs as it is."""
  run, state = _function(model, output)
  compiled = jax.jit(run)

  def batch(images: np.ndarray) -> contract.Outputs:
    # By default GPUs and TPUs multiply in less than float32.
    with jax.default_matmul_precision("highest"):
      return jax.tree.map(np.asarray, compiled(state, images))

  return contract.in_batches(batch, images, None)


def _function(
  model: Net, output: str
) -> tuple[Callable[..., dict[str, jax.Array]], Any]:
  graphdef, state = nnx.split(model)

  def run(state: Any, images: jax.Array) -> dict[str, jax.Array]:
    images = images.astype(jnp.float32) / 255
    return contract.outputs(nnx.merge(graphdef, state), images, output)

  return run, state


def check_shapes(
  model: Net, found: Mapping[str, tuple[int, ...]], options: contract.Options
) -> None:
  """Raises ExportError unless a file's outputs have the shapes of JAX's."""
  run, state = _function(model, options.output)
  images = jax.ShapeDtypeStruct(options.shape, jnp.uint8)
  answers = jax.eval_shape(run, state, images)
  expected = {name: value.shape for name, value in answers.items()}
  if found != expected:
    raise contract.ExportError(f"the outputs are {found}, not {expected}")


def as_input(images: np.ndarray, options: contract.Options) -> np.ndarray:
  """uint8 images as the file wants them."""
  if options.input == "uint8":
    return images
  return images.astype(np.float32) / np.float32(255)


def compare(
  model: Net,
  found: contract.Outputs,
  expected: contract.Outputs,
  options: contract.Options,
) -> Comparison:
  """A file's answers with `answers_of_jax`; raises ExportError for NaN."""
  if found.keys() != expected.keys():
    raise contract.ExportError(
      f"the outputs are {', '.join(found)}, not {', '.join(expected)}"
    )
  difference = max(
    _difference(found[name], value, options.output)
    for name, value in expected.items()
  )
  same = np.equal(
    *(_classes(model, each, options.output) for each in (found, expected))
  )
  return Comparison(len(same), difference, float(np.mean(same)))


def _classes(model: Net, answers: contract.Outputs, output: str) -> np.ndarray:
  """The likeliest classes; of features, by the model's own head."""
  if output == "features":
    scores = np.asarray(model.head(jax.tree.map(jnp.asarray, answers)))
  else:
    scores = answers[output]
  return np.argmax(scores, -1)


def _difference(found: np.ndarray, expected: np.ndarray, output: str) -> float:
  if found.shape != expected.shape:
    raise contract.ExportError(
      f"an output has the shape {list(found.shape)}, not {list(expected.shape)}"
    )
  if not np.all(np.isfinite(found)):
    raise contract.ExportError("the file answers NaN or infinity")
  scale = 1.0
  if output == "features":
    scale = max(scale, float(np.abs(expected).max()))
  elif output == "probabilities":
    # Their logarithms differ as the logits do; they themselves would hide it.
    visible = expected > 1e-30
    found = np.maximum(found[visible], np.finfo(np.float32).tiny)
    found, expected = np.log(found), np.log(expected[visible])
  return float(np.max(np.abs(found - expected))) / scale


def check(comparison: Comparison, precision: contract.Precision) -> None:
  """Raises ExportError if a file is too far from JAX for its precision."""
  allowed = TOLERANCE.get(precision)
  if allowed is not None:
    if comparison.difference > allowed:
      raise contract.ExportError(
        f"differs from JAX by {comparison.difference:.2g} on "
        f"{comparison.images} images; {precision} may by {allowed:g}"
      )
  elif comparison.agreement < MIN_AGREEMENT:
    raise contract.ExportError(
      f"agrees with JAX on {comparison.agreement:.1%} of "
      f"{comparison.images} images; {precision} has to on {MIN_AGREEMENT:.0%}"
    )
