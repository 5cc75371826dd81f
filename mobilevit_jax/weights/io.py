"""`load_weights` and `save_weights`: strict in both directions."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any, TypeVar

from flax import nnx
import jax
import numpy as np

from mobilevit_jax import config
from mobilevit_jax import models
from mobilevit_jax.weights import files
from mobilevit_jax.weights import hf_config
from mobilevit_jax.weights import names
from mobilevit_jax.weights import trees
from mobilevit_jax.weights.source import FoundWeights
from mobilevit_jax.weights.source import read_weights
from mobilevit_jax.weights.source import Which

RESETS = ("none", "classifier", "head")
Reset = str  # one of these
Model = TypeVar("Model", bound=models.Net)


def load_weights(
  model: Model,
  source: str | os.PathLike[str],
  *,
  reset: Reset = "none",
  which: Which = "auto",
  head: str | None = None,
) -> Model:
  """A copy of `model` with the weights of `source`; it takes RGB images.

  The dialect (cvnets', timm's, Hugging Face's or ours) is read off the
  tensors' names. Weights for BGR images (the first and the third) have the
  input channels of their first convolution reversed.

  Args:
    model: from `create_model`; it gives the shapes, and is left as it was.
    source: a `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file, a folder
      with `model.safetensors`, `hf://owner/name`, or a run's workdir.
    reset: what stays the model's own, whatever the source has: `"classifier"`
      those layers of the head whose shapes follow the number of classes, as
      fine-tuning on other classes needs; `"head"` the whole head.
    which: of a run's workdir; see `weights.source.read_weights`.
    head: what `reset` was called; refused.

  Returns:
    The model with the weights, in the types of its own.

  Raises:
    FileNotFoundError: if there is no such source.
    ValueError: if it is damaged, or listing every tensor that is missing, too
      many, misshapen or not finite.
  """
  if head is not None:
    raise ValueError(
      f"head={head!r} is now called reset; head='reset' is reset='classifier', "
      "and head='keep' is reset='none'"
    )
  return place(model, read_weights(source, which=which), reset=reset)


def start(
  model: models.Net,
  seed: int,
  *,
  source: str | None = None,
  which: Which = "auto",
  reset: Reset = "none",
) -> tuple[models.Net, str]:
  """The net that a run starts from, and in words where its weights are from.

  Args:
    model: abstract.
    seed: of what no source gives.
    source: see `load_weights`; None for random weights.
    which: see `load_weights`.
    reset: likewise; without a source it must be `"none"`.

  Raises:
    ValueError: if weights are to be kept and there are none; and as
      `load_weights`.
  """
  if source is None and reset != "none":
    # A recipe for weights that know something learns next to nothing from
    # random ones, and does so silently.
    raise ValueError(
      f"reset={reset!r} trains further from weights, and weights.source names "
      "none. Set config.weights.source to weights (a file, a folder or "
      "hf://owner/name) or to the workdir of another run; or train from random "
      "weights, with configs/finetune.py:VARIANT,scratch, or elsewhere with "
      "config.weights.reset=none"
    )
  # Random values first: what the source leaves out keeps them.
  net = models.initialize(model, seed)
  if source is None:
    return net, f"random, seed {seed}"
  found = read_weights(source, which=which)
  net = place(net, found, reset=reset)
  dialect, kept = (
    names.detect(found.tensors),
    "" if reset == "none" else (f"; the {reset} is random, seed {seed}"),
  )
  return net, f"{source} ({dialect}, {len(found.tensors)} tensors{kept})"


def place(model: Model, found: FoundWeights, *, reset: Reset = "none") -> Model:
  """`load_weights` of what was read already."""
  own = trees.flat_model(model)
  values = decode(found.tensors, model, name=found.name, reset=reset)
  # In the types and on the devices that the model's own tensors have.
  graphdef, state = nnx.split(model)
  placed = {
    path: jax.device_put(value.astype(own[path].dtype), own[path].sharding)
    for path, value in values.items()
  }
  return nnx.merge(graphdef, trees.replace(nnx.to_pure_dict(state), placed))


def save_weights(
  model: models.Net,
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
    name: np.asarray(leaf) for name, leaf in trees.flat_model(model).items()
  }
  write(weights, model, pathlib.Path(path), to=to, labels=labels, force=force)


def write(
  weights: Mapping[str, np.ndarray],
  model: models.Net,
  path: pathlib.Path,
  *,
  to: names.Dialect,
  labels: Sequence[str] | None = None,
  force: bool = False,
) -> None:
  """`save_weights` for tensors by path, of a model that may be abstract."""
  rows = names.table(model)
  if to not in names.DIALECTS:
    allowed = ", ".join(names.DIALECTS)
    raise ValueError(f"to={to!r} must be one of {allowed}")
  num_classes = model.head.num_classes
  if labels is not None and len(labels) != num_classes:
    raise ValueError(
      f"labels: {len(labels)} names for a classifier of {num_classes} classes"
    )
  tensors = names.to_dialect(weights, rows, to)
  # Without it transformers raises "the metadata ... does not contain the
  # format".
  # transformers refuses a file that doesn't say whose tensors it holds.
  metadata = {"format": "np" if to == "jax" else "pt"}
  metadata["output_stride"] = str(model.backbone.output_stride)
  if labels is not None:
    metadata["id2label"] = json.dumps(list(labels))
  if to == "hf" and not path.suffix:
    documents = hf_config.documents(find_variant(tensors), model, labels)
    files.write_folder(path, tensors, metadata, documents, force=force)
  else:
    files.write(path, tensors, metadata, force=force)


def decode(
  tensors: Mapping[str, np.ndarray],
  model: models.Net,
  *,
  name: str,
  reset: Reset = "none",
) -> dict[str, np.ndarray]:
  """Our tensors by path, from those of any dialect; strict.

  Args:
    tensors: as read.
    model: whose tensors they shall be; it may be abstract.
    name: of the source, for messages.
    reset: what to leave out of the result; see `load_weights`.

  Raises:
    ValueError: listing everything that does not fit.
  """
  if reset not in RESETS:
    raise ValueError(f"reset={reset!r} must be one of {', '.join(RESETS)}")
  # --- Which dialect, and does it hold this kind of net at all?
  try:
    dialect = names.detect(tensors)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from error
  rows = names.table(model)
  if dialect != "jax":
    own = models.family_of(model).name, models.head_of(model)
    family, head, _ = names.kind(tensors)
    if own != (family, own[1] if reset == "head" else head):
      raise ValueError(
        f"{name} holds a {family} with head {head!r}, and the model is a "
        f"{own[0]} with head {own[1]!r}"
      )
    rows = names.TABLES[family][head]
  # --- Names that belong to the source's kind of net, whether they are read or
  # left out.
  known = {key for row in rows for key in row.names(dialect)}
  if reset == "head":  # whatever head a file of ours has
    ours = ("head/", "classifier/")
    known |= {key for key in tensors if key.startswith(ours)}
  left_out = {
    "none": (),
    "classifier": tuple(f"head/{part}/" for part in model.head.CLASSIFIERS),
    "head": ("head/",),
  }[reset]
  # --- Shapes, types and values of everything that is read.
  shapes = {path: leaf.shape for path, leaf in trees.flat_model(model).items()}
  rows = [
    row
    for row in rows
    if row.path in shapes and not row.path.startswith(left_out)
  ]
  problems: list[str] = []
  for row in rows:
    expected = names.dialect_shapes(row, shapes[row.path], dialect)
    for key, shape in expected.items():
      problems += _check_tensor(key, shape, tensors.get(key))
  # PyTorch counts BatchNorm's batches, which has no use here.
  counts = {
    key.replace(".running_mean", ".num_batches_tracked") for key in known
  }
  problems += [
    f"extra: {key} {list(tensors[key].shape)}"
    for key in sorted(set(tensors) - known - counts)
  ]
  # All that is wrong at once: fixing files one error at a time is tedious.
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
  # After this, a NaN in training can't come from the weights.
  if value.shape != shape:
    return [f"shape: {key} is {list(value.shape)}, not {list(shape)}"]
  if not np.issubdtype(value.dtype, np.floating):
    return [f"type: {key} is {value.dtype}, not floating point"]
  if not np.all(np.isfinite(value)):
    return [f"values: {key} holds NaN or infinity"]
  if value.size and np.abs(value).max() > np.finfo(np.float32).max:
    return [f"values: {key} holds numbers beyond float32's range"]
  # sqrt(var + eps) of a negative variance is NaN only for some inputs.
  if key.endswith(("running_var", "/var")) and np.any(value < 0):
    return [f"values: {key} holds negative variances"]
  return []


def find_variant(tensors: Mapping[str, np.ndarray]) -> str:
  """The variant that most of the tensors have the shapes of, in any dialect.

  Raises:
    ValueError: if that is not even half of its backbone's.
  """
  kind = names.kind(tensors)
  # Half of the shapes: a backbone with another classifier still counts.
  share, best = names.closest(tensors, kind)
  if share <= 0.5:
    raise ValueError(
      "the variant can't be told: the tensors have the shapes of none of "
      f"{', '.join(models.FAMILIES[kind.family].variants)}"
    )
  return best


def find_model(found: FoundWeights) -> dict[str, Any]:
  """Arguments of `create_model` for a source: variant, head and classes.

  Raises:
    config.ForeignFileError: if they can't be told.
  """
  if found.model is not None:
    return found.model
  with config.foreign(found.name):
    return _find_model(found)


def _find_model(found: FoundWeights) -> dict[str, Any]:
  try:
    family, head, dialect = names.kind(found.tensors)
    name = find_variant(found.tensors)
  except ValueError as error:
    raise ValueError(f"{found.name}: {error}") from error
  # The net with default classes, to learn what its biases are called.
  model = models.abstract_model(name, head)
  biases = {}
  for row in names.table(model):
    value = found.tensors.get(row.names(dialect)[0])
    if row.path.endswith("/bias") and value is not None and value.ndim == 1:
      biases[row.path.removeprefix("head/")] = len(value)
  try:
    num_classes = max(model.head.count_classes(biases), 1)
  except KeyError:  # the strict reading then lists what is missing
    num_classes = model.head.num_classes
  # Options such as the pyramid's width follow from shapes, too.
  fields = {"name": name, "head": head, "num_classes": num_classes}
  own = {}
  if found.output_stride is not None:
    own["output_stride"] = found.output_stride
  if not hasattr(model.head, "fields_of"):
    return fields | own
  shapes = {
    row.path.removeprefix("head/"): names.from_dialect(
      row, found.tensors, dialect
    ).shape
    for row in names.TABLES[family][head]
    if row.path.startswith("head/")
    and all(key in found.tensors for key in row.names(dialect))
  }
  return fields | model.head.fields_of(shapes) | own


def build_model(
  found: FoundWeights, *, variant: str | None = None, **fields: Any
) -> Any:
  """The model that a source's weights belong to, with them.

  Args:
    found: from `source.read_weights`.
    variant: a short or full name, to insist on; else read off the weights.
    **fields: of `create_model`, over the source's own.

  Raises:
    ValueError: for another variant than the weights', or for weights that
      don't fit.
  """
  fields = {**find_model(found), **fields}
  if variant is not None:
    # The strict reading then lists what differs.
    fields["name"] = models.full_name(variant)
  model = models.abstract_model(**fields)
  own = trees.flat_model(model)
  decoded = decode(found.tensors, model, name=found.name)
  values = {path: v.astype(own[path].dtype) for path, v in decoded.items()}
  graphdef, state = nnx.split(model)
  state = trees.replace(nnx.to_pure_dict(state), values)
  return nnx.merge(graphdef, jax.device_put(state))
