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
from mobilevit_jax.models import mobilevit

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
  return np.stack([crop(path.read_bytes(), str(path)) for path in chosen])


def answers_of_jax(
  model: mobilevit.MobileViT, images: np.ndarray, *, features: bool = False
) -> contract.Outputs:
  """`"logits"`, or the stages, of uint8 images; the model runs as it is."""
  run, state = _function(model, features)
  compiled = jax.jit(run)

  def batch(images: np.ndarray) -> contract.Outputs:
    # By default GPUs and TPUs multiply in less than float32.
    with jax.default_matmul_precision("highest"):
      return jax.tree.map(np.asarray, compiled(state, images))

  return contract.in_batches(batch, images, None)


def _function(
  model: mobilevit.MobileViT, features: bool
) -> tuple[Callable[..., dict[str, jax.Array]], Any]:
  graphdef, state = nnx.split(model)

  def run(state: Any, images: jax.Array) -> dict[str, jax.Array]:
    net, images = nnx.merge(graphdef, state), images.astype(jnp.float32) / 255
    return net.features(images) if features else {"logits": net(images)}

  return run, state


def check_shapes(
  model: mobilevit.MobileViT,
  found: Mapping[str, tuple[int, ...]],
  options: contract.Options,
) -> None:
  """Raises ExportError unless a file's outputs have the shapes of JAX's."""
  run, state = _function(model, options.output == "features")
  images = jax.ShapeDtypeStruct(options.shape, jnp.uint8)
  expected = {
    options.output if name == "logits" else name: value.shape
    for name, value in jax.eval_shape(run, state, images).items()
  }
  if found != expected:
    raise contract.ExportError(f"the outputs are {found}, not {expected}")


def as_input(images: np.ndarray, options: contract.Options) -> np.ndarray:
  """uint8 images as the file wants them."""
  if options.input == "uint8":
    return images
  return images.astype(np.float32) / np.float32(255)


def compare(
  model: mobilevit.MobileViT,
  found: contract.Outputs,
  expected: contract.Outputs,
  options: contract.Options,
) -> Comparison:
  """A file's answers with `answers_of_jax`; raises ExportError for NaN."""
  if options.output == "features":
    if found.keys() != expected.keys():
      raise contract.ExportError(f"the outputs are {', '.join(found)}")
    difference = max(
      _difference(found[name], value, max(1, np.abs(value).max()))
      for name, value in expected.items()
    )
    classes = [_classes(model, each["stage5"]) for each in (found, expected)]
    same = np.equal(*classes)
    return Comparison(len(same), difference, float(np.mean(same)))
  logits, answers = expected["logits"], found[options.output]
  same = np.argmax(logits, -1) == np.argmax(answers, -1)
  if options.output == "probabilities":
    # Their logarithms differ as the logits do; they themselves would hide it.
    logits = _log_softmax(logits)
    visible = logits > np.log(1e-30)
    answers = np.log(np.maximum(answers, np.finfo(np.float32).tiny))
    logits, answers = logits[visible], answers[visible]
  return Comparison(
    len(same), _difference(answers, logits), float(np.mean(same))
  )


def _classes(model: mobilevit.MobileViT, stage5: np.ndarray) -> np.ndarray:
  pooled = jnp.mean(model.head(jnp.asarray(stage5)), axis=(1, 2))
  return np.argmax(model.classifier(pooled), -1)


def _difference(
  found: np.ndarray, expected: np.ndarray, scale: float = 1
) -> float:
  if found.shape != expected.shape:
    raise contract.ExportError(
      f"an output has the shape {list(found.shape)}, not {list(expected.shape)}"
    )
  if not np.all(np.isfinite(found)):
    raise contract.ExportError("the file answers NaN or infinity")
  return float(np.max(np.abs(found - expected))) / scale


def _log_softmax(logits: np.ndarray) -> np.ndarray:
  shifted = np.float64(logits) - np.max(logits, -1, keepdims=True)
  return shifted - np.log(np.sum(np.exp(shifted), -1, keepdims=True))


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
