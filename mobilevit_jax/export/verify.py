"""A file's answers beside those of the model in JAX."""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.models.net import Net

# float32's rounding over 30 layers, with a margin; half precision has 11 bits
# of mantissa.
# Largest difference from JAX's logits.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
# Likewise of boxes' edges, as parts of the image.
BOXES = {"fp32": 1e-3, "fp16": 1e-2, "int8-dynamic": 2e-2, "int8": 2e-2}
# Least share of images that keep their class, where numbers have eight bits.
MIN_AGREEMENT = 0.9
_MIN_BOXES = 0.99  # of float32's boxes: two may be equally sure
# Boxes of an image that are held to be objects: of at least this score, and the
# surest ones in any case.
_OBJECT, _SUREST = 0.3, 10
_DETECTION = ("boxes", "classes", "scores")  # what it is made of


@dataclasses.dataclass(frozen=True)
class Comparison:
  """How far a file is from JAX.

  Attributes:
    images: how many were compared.
    difference: the largest, of logits or log-probabilities; of features, as a
      share of the stage's largest value where that is above 1; of classes, the
      share of those that differ; of detections, of their scores.
    agreement: share of images, or of their pixels, whose likeliest class is
      JAX's; of features, by the model's own classifier; of boxes, the share of
      an image's surest ones that have JAX's class and place.
  """

  images: int
  difference: float
  agreement: float


def built_in_images(size: int, count: int = 8, seed: int = 0) -> np.ndarray:
  """Coloured squares, uint8 `[count, size, size, 3]`, always the same."""
  # Squares: flat areas and edges, as in photographs, and no file to read.
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
  index = np.arange(size) * 8 // size
  return coarse[:, index][:, :, index]


def answers_of_jax(
  model: Net, images: np.ndarray, options: contract.Options
) -> contract.Outputs:
  """What a file of uint8 images has to answer; the model runs as it is."""
  run, state = contract.function(model, options)
  # Compiled once for all the batches.
  compiled = jax.jit(run)

  def batch(images: np.ndarray) -> contract.Outputs:
    # By default GPUs and TPUs multiply in less than float32.
    with jax.default_matmul_precision("highest"):
      return jax.tree.map(np.asarray, compiled(state, images))

  return contract.in_batches(batch, images, None)


def check_shapes(
  model: Net, found: Mapping[str, tuple[int, ...]], options: contract.Options
) -> None:
  """Raises ExportError unless a file's outputs have the shapes of JAX's."""
  answers = contract.output_types(model, options)
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
  for name, value in expected.items():
    _check_array(found[name], value)
  # --- Each kind of output has its own measure.
  if options.nms is not None:
    return _compare_detections(found, expected, options.precision)
  if "boxes" in expected:
    return _compare_boxes(found, expected, options.precision)
  difference = max(
    _difference(found[name], value, options.output)
    for name, value in expected.items()
  )
  same = np.equal(
    *(_classes(model, each, options.output) for each in (found, expected))
  )
  return Comparison(len(same), difference, float(np.mean(same)))


def _compare_boxes(
  found: contract.Outputs,
  expected: contract.Outputs,
  precision: contract.Precision,
) -> Comparison:
  """Of every anchor the scores; of the surest the class and the place."""
  difference = _difference(found["scores"], expected["scores"], "probabilities")
  scores = expected["scores"].max(-1)
  # --- float32 must agree on every anchor; lower precisions on those that
  # matter.
  order = np.argsort(-scores, axis=1)
  rank = np.argsort(order, axis=1)
  chosen = (rank < _SUREST) | (scores >= _OBJECT)
  if precision == "fp32":
    chosen[:] = True
  same = found["scores"].argmax(-1) == expected["scores"].argmax(-1)
  # Boxes as parts of the image; larger ones, by their own size.
  # (The sides of what is no object may be many images long.)
  apart = np.abs(found["boxes"] - expected["boxes"])
  apart = (apart / np.maximum(np.abs(expected["boxes"]), 1)).max(-1)
  same &= apart <= BOXES[precision]
  shares = [np.mean(own[mask]) for own, mask in zip(same, chosen, strict=True)]
  return Comparison(len(shares), difference, float(np.mean(shares)))


def _compare_detections(
  found: contract.Outputs,
  expected: contract.Outputs,
  precision: contract.Precision,
) -> Comparison:
  """Of JAX's detections those that the file has too, and their scores."""
  difference, shares = 0.0, []
  rows = zip(
    *(answers[name] for answers in (expected, found) for name in _DETECTION),
    strict=True,
  )
  # --- A detection of JAX's is found if one of the file's has its class and its
  # place.
  for boxes, classes, scores, other_boxes, other_classes, other_scores in rows:
    same = np.equal.outer(classes, other_classes)
    same &= np.logical_and.outer(scores > 0, other_scores > 0)
    apart = np.abs(boxes[:, None] - other_boxes).max(-1)
    same &= apart <= BOXES[precision]
    # Cut at the image's edges, two boxes may be in one place.
    apart = np.where(same, np.abs(np.subtract.outer(scores, other_scores)), 2)
    nearest = apart.min(1)
    difference = max([difference, *nearest[nearest < 2].tolist()])
    # Neither missing nor additional detections may hide in the mean.
    most = max(np.count_nonzero(scores), np.count_nonzero(other_scores), 1)
    missing = np.count_nonzero(scores) - np.count_nonzero(nearest < 2)
    extra = max(np.count_nonzero(other_scores) - np.count_nonzero(scores), 0)
    shares.append(1 - max(missing, extra) / most)
  return Comparison(len(shares), difference, float(np.mean(shares)))


def _classes(model: Net, answers: contract.Outputs, output: str) -> np.ndarray:
  """The likeliest classes; of features, by the model's own head."""
  if output == "features":
    scores = np.asarray(model.head(jax.tree.map(jnp.asarray, answers)))
  else:
    scores = answers[output]
  if np.issubdtype(scores.dtype, np.integer):
    return scores  # the classes of pixels
  return np.argmax(scores, -1)


def _check_array(found: np.ndarray, expected: np.ndarray) -> None:
  if found.shape != expected.shape:
    raise contract.ExportError(
      f"an output has the shape {list(found.shape)}, not {list(expected.shape)}"
    )
  if not np.all(np.isfinite(found)):
    raise contract.ExportError("the file answers NaN or infinity")


def _difference(found: np.ndarray, expected: np.ndarray, output: str) -> float:
  if np.issubdtype(found.dtype, np.integer):
    # Of masks, the share of pixels that differ.
    return float(np.mean(found != expected))
  scale = 1.0
  if output == "features":
    scale = max(scale, float(np.abs(expected).max()))
  elif output == "probabilities":
    # Their logarithms differ as the logits do; they themselves would hide it.
    # Shares below 1e-30 are rounding alone.
    visible = expected > 1e-30
    found = np.maximum(found[visible], np.finfo(np.float32).tiny)
    found, expected = np.log(found), np.log(expected[visible])
  return float(np.max(np.abs(found - expected))) / scale


def check(comparison: Comparison, options: contract.Options) -> None:
  """Raises ExportError if a file is too far from JAX for its precision."""
  precision = options.precision
  allowed = TOLERANCE.get(precision)
  if allowed is not None and comparison.difference > allowed:
    raise contract.ExportError(
      f"differs from JAX by {comparison.difference:.2g} on "
      f"{comparison.images} images; {precision} may by {allowed:g}"
    )
  # Logits that are near have their classes; boxes are judged by themselves.
  judged = allowed is None or options.output == "boxes"
  least = _MIN_BOXES if precision == "fp32" else MIN_AGREEMENT
  if judged and comparison.agreement < least:
    raise contract.ExportError(
      f"agrees with JAX on {comparison.agreement:.1%} of "
      f"{comparison.images} images; {precision} has to on {least:.0%}"
    )
