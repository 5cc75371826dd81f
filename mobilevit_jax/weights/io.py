"""`load_weights` and `save_weights`: strict in both directions."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any, TypeVar

from flax import nnx
import jax
import numpy as np

from mobilevit_jax import models
from mobilevit_jax.models import mobilevit
from mobilevit_jax.weights import files
from mobilevit_jax.weights import hf_config
from mobilevit_jax.weights import names
from mobilevit_jax.weights import source as source_lib
from mobilevit_jax.weights import trees

Head = str  # "keep" or "reset"
Model = TypeVar("Model", bound=nnx.Module)


def load_weights(
  model: Model,
  source: str | os.PathLike[str],
  *,
  head: Head = "keep",
  which: source_lib.Which = "auto",
) -> Model:
  """A copy of `model` with the weights of `source`; it takes RGB images.

  The dialect (cvnets', timm's, Hugging Face's or ours) is read off the
  tensors' names. Weights for BGR images (the first and the third) have the
  input channels of their first convolution reversed.

  Args:
    model: from `create_model`; it gives the shapes, and is left as it was.
    source: a `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file, a folder
      with `model.safetensors`, `hf://owner/name`, or a run's workdir.
    head: `"reset"` keeps the model's own classifier, whatever the source's,
      as fine-tuning on other classes needs.
    which: of a run's workdir; see `weights.source.read`.

  Returns:
    The model with the weights, in the types of its own.

  Raises:
    FileNotFoundError: if there is no such source.
    ValueError: if it is damaged, or listing every tensor that is missing, too
      many, misshapen or not finite.
  """
  own = _check_model(model)
  found = source_lib.read(source, which=which)
  shapes = {path: leaf.shape for path, leaf in own.items()}
  values = decode(found.tensors, shapes, name=found.name, head=head)
  graphdef, state = nnx.split(model)
  placed = {
    path: jax.device_put(value.astype(own[path].dtype), own[path].sharding)
    for path, value in values.items()
  }
  return nnx.merge(graphdef, trees.replace(nnx.to_pure_dict(state), placed))


def save_weights(
  model: nnx.Module,
  path: str | os.PathLike[str],
  *,
  to: names.Dialect = "jax",
  labels: Sequence[str] | None = None,
  force: bool = False,
) -> None:
  """Writes a model's weights in a dialect, its channel order included.

  Args:
    model: from `create_model`, with its weights.
    path: a `.safetensors` or `.npz` file; with `to="hf"` also a folder, which
      gets the `config.json` and `preprocessor_config.json` of transformers.
    to: `"jax"`, `"timm"`, `"hf"` or `"cvnets"`.
    labels: class names, kept beside the weights where the format can.
    force: replace what exists.

  Raises:
    FileExistsError: if `path` exists, without `force`.
    ValueError: for an unknown dialect or ending.
  """
  weights = {
    name: np.asarray(leaf) for name, leaf in _check_model(model).items()
  }
  write(weights, pathlib.Path(path), to=to, labels=labels, force=force)


def write(
  weights: Mapping[str, np.ndarray],
  path: pathlib.Path,
  *,
  to: names.Dialect,
  labels: Sequence[str] | None = None,
  force: bool = False,
) -> None:
  """`save_weights` for our tensors by path."""
  if to not in names.DIALECTS:
    allowed = ", ".join(names.DIALECTS)
    raise ValueError(f"to={to!r} must be one of {allowed}")
  num_classes = len(weights["classifier/bias"])
  if labels is not None and len(labels) != num_classes:
    raise ValueError(
      f"labels: {len(labels)} names for a classifier of {num_classes} classes"
    )
  tensors = names.to_dialect(weights, to)
  # transformers refuses a file that doesn't say whose tensors it holds.
  metadata = {"format": "np" if to == "jax" else "pt"}
  if labels is not None:
    metadata["id2label"] = json.dumps(list(labels))
  if to == "hf" and not path.suffix:
    documents = hf_config.documents(find_variant(weights), num_classes, labels)
    files.write_folder(path, tensors, metadata, documents, force=force)
  else:
    files.write(path, tensors, metadata, force=force)


def decode(
  tensors: Mapping[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
  *,
  name: str,
  head: Head = "keep",
) -> dict[str, np.ndarray]:
  """Our tensors by path, from those of any dialect; strict.

  Args:
    tensors: as read.
    shapes: that our model's tensors have, by path.
    name: of the source, for messages.
    head: `"reset"` leaves the classifier out of the result.

  Raises:
    ValueError: listing everything that does not fit.
  """
  if head not in ("keep", "reset"):
    raise ValueError(f"head={head!r} must be 'keep' or 'reset'")
  try:
    dialect = names.detect(tensors)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from error
  known: set[str] = set()
  problems: list[str] = []
  rows = []
  for row in names.table():
    expected = names.dialect_shapes(row, shapes[row.path], dialect)
    known |= set(expected)
    if head == "reset" and row.path in names.CLASSIFIER:
      continue
    rows.append(row)
    for key, shape in expected.items():
      problems += _check_tensor(key, shape, tensors.get(key))
  counts = {
    key.replace(".running_mean", ".num_batches_tracked") for key in known
  }
  problems += [
    f"extra: {key} {list(tensors[key].shape)}"
    for key in sorted(set(tensors) - known - counts)
  ]
  if problems:
    raise ValueError(
      f"{name} ({dialect} names) does not fit the model in {len(problems)} "
      "tensors:\n  " + "\n  ".join(problems)
    )
  return {row.path: names.from_dialect(row, tensors, dialect) for row in rows}


def _check_tensor(
  key: str, shape: tuple[int, ...], value: np.ndarray | None
) -> list[str]:
  if value is None:
    return [f"missing: {key} {list(shape)}"]
  if value.shape != shape:
    return [f"shape: {key} is {list(value.shape)}, not {list(shape)}"]
  if not np.issubdtype(value.dtype, np.floating):
    return [f"type: {key} is {value.dtype}, not floating point"]
  if not np.all(np.isfinite(value)):
    return [f"values: {key} holds NaN or infinity"]
  if key.endswith(("running_var", "/var")) and np.any(value < 0):
    return [f"values: {key} holds negative variances"]
  return []


def find_variant(tensors: Mapping[str, np.ndarray]) -> str:
  """The model's name by the width of its last convolution, in any dialect."""
  dialect = names.detect(tensors)
  row = next(r for r in names.table() if r.path == "head/conv/kernel")
  widths = {
    names.dialect_shapes(
      row, (1, 1, v.channels[-1], 4 * v.channels[-1]), dialect
    )[row.names(dialect)[0]]: name
    for name, v in mobilevit.VARIANTS.items()
  }
  key = row.names(dialect)[0]
  shape = tensors[key].shape if key in tensors else None
  if shape not in widths:
    raise ValueError(
      f"the variant can't be told: {key} is "
      + ("missing" if shape is None else f"{list(shape)}")
      + f", where one of {', '.join(str(list(w)) for w in widths)} is expected"
    )
  return widths[shape]


def find_model(found: source_lib.Source) -> dict[str, Any]:
  """Arguments of `create_model` for a source: variant and classes."""
  if found.model is not None:
    return found.model
  try:
    name = find_variant(found.tensors)
  except ValueError as error:
    raise ValueError(f"{found.name}: {error}") from error
  dialect = names.detect(found.tensors)
  bias = next(r for r in names.table() if r.path == names.CLASSIFIER[1])
  value = found.tensors.get(bias.names(dialect)[0])
  num_classes = len(value) if value is not None and value.ndim == 1 else 1000
  return {"name": name, "num_classes": max(num_classes, 1)}


def build_model(
  found: source_lib.Source, *, variant: str | None = None, **fields: Any
) -> Any:
  """The model that a source's weights belong to, with them.

  Args:
    found: from `source.read`.
    variant: `"xxs"`, `"xs"` or `"s"`, to insist on; else read off the weights.
    **fields: of `create_model`, over the source's own.

  Raises:
    ValueError: for another variant than the weights', or for weights that
      don't fit.
  """
  fields = {**find_model(found), **fields}
  if variant is not None:
    wanted = f"mobilevit_{variant.removeprefix('mobilevit_')}"
    if wanted not in models.VARIANTS:
      raise ValueError(
        f"--variant={variant} must be one of {', '.join(models.VARIANTS)}"
      )
    # The strict reading then lists what differs.
    fields["name"] = wanted
  model = models.abstract_model(**fields)
  shapes = {path: leaf.shape for path, leaf in trees.flat_model(model).items()}
  values = decode(found.tensors, shapes, name=found.name)
  graphdef, state = nnx.split(model)
  state = trees.replace(nnx.to_pure_dict(state), values)
  return nnx.merge(graphdef, jax.device_put(state))


def model_shapes(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Shapes by path of the model that `create_model(**fields)` would make."""
  flat = trees.flat_model(models.abstract_model(**fields))
  return {path: leaf.shape for path, leaf in flat.items()}


def _check_model(model: nnx.Module) -> dict[str, Any]:
  if not isinstance(model, mobilevit.MobileViT):
    raise ValueError(
      f"model is a {type(model).__name__}; only MobileViT's names are known"
    )
  return trees.flat_model(model)
