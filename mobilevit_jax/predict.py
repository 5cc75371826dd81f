"""Classifies images with published weights or a run's own.

    python -m mobilevit_jax.predict --weights=SOURCE IMAGE_OR_FOLDER...

Prints the five likeliest classes of each image. An image that can't be read is
reported by name on standard error, the rest go on, and the exit code is 1.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
import json
import pathlib
import sys
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.data.transforms import presets
from mobilevit_jax.weights import io
from mobilevit_jax.weights import labels as labels_lib
from mobilevit_jax.weights import names
from mobilevit_jax.weights import source as source_lib

# (image's name, its classes as (index, probability), likeliest first)
Prediction = tuple[str, list[tuple[int, float]]]


@dataclasses.dataclass(frozen=True)
class Classifier:
  """A net with what it needs to name what it sees.

  Attributes:
    probabilities: uint8 `[b, size, size, 3]` to `[b, num_classes]`.
    labels: class names.
    crop: of the images.
  """

  probabilities: Callable[[np.ndarray], np.ndarray]
  labels: Sequence[str]
  crop: presets.Crop


def load(
  source: str,
  *,
  variant: str | None = None,
  which: source_lib.Which = "auto",
  preset: str | None = None,
  size: int | None = None,
  labels: str | None = None,
) -> Classifier:
  """Weights from any source `load_weights` takes, ready to classify.

  Args:
    source: see `load_weights`.
    variant: a short or full name, to insist on; else read off the weights.
    which: of a run's workdir; see `weights.source.read`.
    preset: how images are cropped; by default as the run's own evaluation
      does, or as the weights' dialect was.
    size: image side; by default the run's own, or 256.
    labels: a file of class names (JSON list, or one a line), or `tfds:NAME`.

  Raises:
    ValueError, OSError: if anything can't be read or does not fit.
  """
  found = source_lib.read(source, which=which)
  model = io.build_model(found, variant=variant)
  graphdef, state = nnx.split(model)

  @jax.jit
  def probabilities(state: Any, images: jax.Array) -> jax.Array:
    net = nnx.merge(graphdef, state)
    return jax.nn.softmax(net(images.astype(jnp.float32) / 255))

  dialect = names.detect(found.tensors)
  return Classifier(
    lambda images: np.asarray(probabilities(state, images)),
    labels_lib.class_names(labels, found, model.head.num_classes),
    presets.choose(dialect, found.crop, preset=preset, size=size),
  )


def classify(
  classifier: Classifier,
  paths: Sequence[pathlib.Path],
  *,
  batch: int,
  top: int,
  report: Callable[[str], None],
) -> Iterator[Prediction]:
  """The likeliest classes of each image that can be read.

  Args:
    classifier: from `load`.
    paths: image files.
    batch: images at a time.
    top: how many classes.
    report: called with a line about each image that can't be read.
  """
  readable = _read_images(classifier, paths, report)
  batch = min(batch, len(paths))
  while chunk := list(itertools.islice(readable, batch)):
    # The last is filled up: one shape is one compilation.
    images = np.zeros((batch, *chunk[0][1].shape), np.uint8)
    images[: len(chunk)] = [image for _, image in chunk]
    for (name, _), row in zip(
      chunk, classifier.probabilities(images), strict=False
    ):
      order = np.argsort(-row, kind="stable")[:top]
      yield name, [(int(index), float(row[index])) for index in order]


def _read_images(
  classifier: Classifier,
  paths: Sequence[pathlib.Path],
  report: Callable[[str], None],
) -> Iterator[tuple[str, np.ndarray]]:
  for path in paths:
    try:
      image = classifier.crop(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:
      message = str(error)
      report(message if str(path) in message else f"{path}: {message}")
      continue
    yield str(path), image


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 if any image could not be read."""
  args = _parser().parse_args(argv)
  failures: list[str] = []

  def report(message: str) -> None:
    failures.append(message)
    print(f"predict: {message}", file=sys.stderr)

  try:
    _check_counts(size=args.size, batch=args.batch, top=args.top)
    paths = presets.find_images(args.images)
    classifier = load(
      args.weights,
      variant=args.variant,
      which=args.which,
      preset=args.preset,
      size=args.size,
      labels=args.labels,
    )
    predictions = classify(
      classifier, paths, batch=args.batch, top=args.top, report=report
    )
    for name, classes in predictions:
      write = _print_json if args.json else _print_table
      write(name, classes, classifier.labels)
  except (ValueError, OSError) as error:
    report(str(error))
  return 1 if failures else 0


def _check_counts(**counts: int | None) -> None:
  for name, count in counts.items():
    if count is not None and count < 1:
      raise ValueError(f"--{name}={count} must be at least 1")


def _print_json(
  name: str, classes: list[tuple[int, float]], labels: Sequence[str]
) -> None:
  # One object a line, so that a reader need not wait for the end.
  top = [
    {"class": index, "label": labels[index], "probability": probability}
    for index, probability in classes
  ]
  print(json.dumps({"image": name, "top": top}), flush=True)


def _print_table(
  name: str, classes: list[tuple[int, float]], labels: Sequence[str]
) -> None:
  print(name)
  for index, probability in classes:
    print(f"  {probability:7.2%}  {labels[index]}", flush=True)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mobilevit_jax.predict",
    description="Prints the likeliest classes of images.",
  )
  parser.add_argument("images", metavar="IMAGE", nargs="+", type=pathlib.Path)
  parser.add_argument(
    "--weights", required=True, help="file, folder, hf://owner/name or workdir"
  )
  parser.add_argument("--variant", help="short or full name, to insist on")
  parser.add_argument("--which", choices=source_lib.WHICH, default="auto")
  parser.add_argument("--preset", choices=presets.PRESETS)
  parser.add_argument("--size", type=int, help="image side in pixels")
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--top", type=int, default=5, help="classes to print")
  parser.add_argument("--labels", help="file of class names, or tfds:NAME")
  parser.add_argument("--json", action="store_true", help="one object a line")
  return parser


if __name__ == "__main__":
  sys.exit(main())
