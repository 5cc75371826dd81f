"""Class names: of a file, of the weights, of TFDS if it's there, or numbers."""

from collections.abc import Sequence
import importlib.util
import json
import pathlib
from typing import Any

from mobilevit_jax import config
from mobilevit_jax.weights.source import check_labels
from mobilevit_jax.weights.source import FoundWeights

_TFDS = "tfds:"
_MODULE = "tensorflow_datasets"
# The published classifiers' classes; TFDS knows them without the images.
_IMAGENET = ("imagenet2012", 1000)


def find_class_names(
  labels: str | None, found: FoundWeights, num_classes: int
) -> Sequence[str]:
  """From the option, the weights, TFDS's ImageNet, or else numbers."""
  if labels is not None:
    result = _read_labels(labels)
  elif found.labels is not None:
    result = found.labels
  # Published classifiers have 1,000 classes, which are ImageNet's.
  elif num_classes == _IMAGENET[1] and importlib.util.find_spec(_MODULE):
    result = _tfds_labels(_IMAGENET[0])
  else:
    result = tuple(f"class {index}" for index in range(num_classes))
  if len(result) != num_classes:
    raise ValueError(
      f"{labels or found.name}: {len(result)} class names for a classifier of "
      f"{num_classes} classes; give others with --labels"
    )
  return result


def _read_labels(labels: str) -> tuple[str, ...]:
  if labels.startswith(_TFDS):
    return _tfds_labels(labels.removeprefix(_TFDS))
  with config.foreign(labels):
    text = pathlib.Path(labels).read_text(encoding="utf-8")
    if labels.endswith(".json"):
      return check_labels(labels, json.loads(text))
    return tuple(text.splitlines())


def _tfds_labels(name: str) -> tuple[str, ...]:
  config.need(_MODULE, "tfds", f"--labels={_TFDS}{name}")
  # Imported late: it takes seconds. The names come with the package.
  import tensorflow_datasets as tfds

  try:
    features: Any = tfds.builder(name).info.features
    return tuple(features["label"].names)
  except (tfds.core.DatasetNotFoundError, KeyError, TypeError) as error:
    raise ValueError(f"--labels=tfds:{name}: no such classes") from error
