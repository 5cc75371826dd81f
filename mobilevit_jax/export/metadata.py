"""What a file says about itself: a JSON document."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from mobilevit_jax import __version__
from mobilevit_jax import models
from mobilevit_jax.export import contract
from mobilevit_jax.export.nms import Suppression
from mobilevit_jax.models.net import Net
from mobilevit_jax.models.net import public_name
from mobilevit_jax.weights import trees
from mobilevit_jax.weights.source import FoundWeights

# Of the document; a reader refuses another.
FORMAT = 1


def describe(
  model: Net,
  options: contract.Options,
  preprocessing: Mapping[str, Any],
  *,
  task: str,
  name: str,
  found: FoundWeights | None = None,
  labels: Sequence[str] | None = None,
  nms: Suppression | None = None,
  **more: Any,
) -> dict[str, Any]:
  """The document; docs/on_device.md says what its entries mean.

  Args:
    model: that is exported.
    options: of the file.
    preprocessing: of images, see `data.transforms.Portable`.
    task: a key of `experiment.TASKS`.
    name: of the variant, such as `"mobilevit_s"`.
    found: where the weights came from.
    labels: class names.
    nms: of a detector, how its boxes are suppressed, in the file or after it.
    **more: further entries.
  """
  # The tensors' hash, under public names: it doesn't depend on how the net is
  # put together, nor on the kind of file they came from.
  tensors = trees.flat_model(model)
  weights = {
    "sha256": tensors_hash({public_name(k): v for k, v in tensors.items()})
  }
  if found is not None:
    # Not the whole path, which is nobody else's business.
    weights["source"] = (
      found.name if "://" in found.name else pathlib.PurePath(found.name).name
    )
    if found.file is not None:
      with found.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
      weights["file_sha256"] = digest.hexdigest()
  document = {
    "format": FORMAT,
    "producer": f"mobilevit_jax {__version__}",
    "model": name,
    "variant": models.short_name(name),
    "precision": options.precision,
    "task": "features" if options.output == "features" else task,
    "input": {
      "name": "images",
      "type": options.input,
      "layout": "NHWC",
      "shape": [options.batch, *options.shape[1:]],
      "channels": "RGB",
      "range": [0, 255] if options.input == "uint8" else [0, 1],
      "normalisation": "none",
    },
    "preprocessing": dict(preprocessing),
    "outputs": {
      key: {
        # Outputs as the file answers them, by tracing the model: no copy to
        # keep up to date.
        "type": value.dtype.name,
        "shape": [options.batch, *value.shape[1:]],
      }
      for key, value in contract.output_types(model, options).items()
    },
    "weights": weights,
  }
  if options.output != "features":
    document["num_classes"] = model.head.num_classes
    document["labels"] = list(labels) if labels is not None else None
    if nms is not None:
      fields = dataclasses.asdict(nms)
      document["nms"] = {"in_file": options.nms is not None, **fields}
  return document | more


def read(text: str, name: str) -> dict[str, Any]:
  """A file's document.

  Args:
    text: as it stands in the file; empty where there is none.
    name: of the file, for messages.

  Raises:
    ValueError: for a file without one of the present format.
  """
  document = json.loads(text) if text else {}
  if document.get("format") != FORMAT:
    raise ValueError(
      f"{name} doesn't say how it is used as this version of mobilevit_jax "
      "writes it; export it again"
    )
  return document


def tensors_hash(tensors: Mapping[str, Any]) -> str:
  """SHA-256 of a model's tensors, whichever kind of file they came from.

  Over the paths in sorted order: the path, a zero byte, the shape as `3,3,16`,
  a zero byte, the values as little-endian float32.
  """
  digest = hashlib.sha256()
  for path, value in sorted(tensors.items()):
    # Little-endian float32 in C order, so that any language can repeat it.
    shape = ",".join(str(n) for n in value.shape)
    digest.update(f"{path}\0{shape}\0".encode())
    digest.update(np.ascontiguousarray(value, "<f4").tobytes())
  return digest.hexdigest()


def dumps(document: Mapping[str, Any]) -> str:
  """As it stands in files: the same text for the same document."""
  return json.dumps(document, ensure_ascii=False, sort_keys=True)
