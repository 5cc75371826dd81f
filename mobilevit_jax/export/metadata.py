"""What a file says about itself: a JSON document."""

from collections.abc import Mapping, Sequence
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from mobilevit_jax import __version__
from mobilevit_jax import models
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import contract
from mobilevit_jax.models.net import Net
from mobilevit_jax.models.net import public_name
from mobilevit_jax.weights import source as source_lib
from mobilevit_jax.weights import trees

# How each preset makes the shorter side; see `presets`.
_INTERPOLATION = {
  "cvnets": "bilinear, no antialiasing",
  "hf": "bilinear, antialiasing",
  "timm": "bicubic, antialiasing",
}


def describe(
  model: Net,
  options: contract.Options,
  crop: presets.Crop,
  *,
  name: str,
  found: source_lib.Source | None = None,
  labels: Sequence[str] | None = None,
  **more: Any,
) -> dict[str, Any]:
  """The document.

  Args:
    model: that is exported.
    options: of the file.
    crop: of the images that the model is evaluated on.
    name: of the variant, such as `"mobilevit_s"`.
    found: where the weights came from.
    labels: class names.
    **more: entries of a format.
  """
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
    "producer": f"mobilevit_jax {__version__}",
    "model": name,
    "variant": models.short_name(name),
    "image_size": options.size,
    "precision": options.precision,
    "input": {
      "name": "images",
      "type": options.input,
      "layout": "NHWC",
      "channels": "RGB",
      "range": [0, 255] if options.input == "uint8" else [0, 1],
      "normalisation": "none",
    },
    # To size the shorter side, then the centre of it, as evaluation does.
    "crop": {
      "preset": crop.preset,
      "resize": crop.resize,
      "size": crop.size,
      "interpolation": _INTERPOLATION[crop.preset],
    },
    "output": options.output,
    "weights": weights,
  }
  if options.output != "features":
    document["num_classes"] = model.head.num_classes
    document["labels"] = list(labels) if labels is not None else None
  return document | more


def tensors_hash(tensors: Mapping[str, Any]) -> str:
  """SHA-256 of a model's tensors, whichever kind of file they came from.

  Over the paths in sorted order: the path, a zero byte, the shape as `3,3,16`,
  a zero byte, the values as little-endian float32.
  """
  digest = hashlib.sha256()
  for path, value in sorted(tensors.items()):
    shape = ",".join(str(n) for n in value.shape)
    digest.update(f"{path}\0{shape}\0".encode())
    digest.update(np.ascontiguousarray(value, "<f4").tobytes())
  return digest.hexdigest()


def dumps(document: Mapping[str, Any]) -> str:
  """As it stands in files: the same text for the same document."""
  return json.dumps(document, ensure_ascii=False, sort_keys=True)
