"""Where weights come from: files, folders, the Hub, runs of our own."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib
import json
import os
import pathlib
import sys
from typing import Any

from etils import epath
import jax
import numpy as np

from mobilevit_jax import files as own_files
from mobilevit_jax import models
from mobilevit_jax.config import check_version
from mobilevit_jax.config import foreign
from mobilevit_jax.models import net
from mobilevit_jax.weights import files
from mobilevit_jax.weights import names
from mobilevit_jax.weights import teaching
from mobilevit_jax.weights import trees

WHICH = ("auto", "ema", "raw", "best")
Which = str  # one of these
_HUB = "hf://"
_REMOTE = ("az", "gs", "s3")  # kinds of storage that may hold a run
# Folders of a run that hold checkpoints, and the weights that they stand for.
_FOLDERS = {"best": "best", "checkpoints": "ema"}


@dataclasses.dataclass(frozen=True)
class FoundWeights:
  """What a source of weights holds.

  Attributes:
    name: what the user called it, for messages.
    tensors: by name, in whichever dialect.
    labels: class names, where the source has them.
    model: arguments of `create_model`, where it is a run of ours.
    crop: how the run is evaluated: arguments of `data.presets.Crop`.
    config: of the run, as its folder remembers it.
    output_stride: of a file or folder that says it; no shape tells it.
    file: that holds the tensors, where it is a single one.
    which: of a run, the weights: "ema", "raw" or "best".
    step: of a run, that of the checkpoint.
  """

  name: str
  tensors: files.Tensors
  labels: tuple[str, ...] | None = None
  model: dict[str, Any] | None = None
  crop: dict[str, Any] | None = None
  config: dict[str, Any] | None = None
  output_stride: int | None = None
  file: pathlib.Path | None = None
  which: str | None = None
  step: int | None = None


def read_weights(
  source: str | os.PathLike[str],
  *,
  which: Which = "auto",
  say: Callable[[str], None] | None = None,
) -> FoundWeights:
  """Reads weights.

  Args:
    source: a `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file, a folder
      with `model.safetensors`, `hf://owner/name[@revision]`, `teaching:NAME`
      (see `teaching.TEACHING`), or a run's workdir, local or `gs://`; its
      folders `best` and `checkpoints` stand for the run, with the weights in
      them.
    which: of a run, the averaged (`"ema"`) or the `"raw"` weights of its last
      step, or the averaged ones that evaluated `"best"`; `"auto"` is the best
      of a run that stops early, and the averaged ones of another. Of a PyTorch
      file that holds both, the averaged ones unless `"raw"`.
    say: takes a line on what was chosen or changed; by default they go to
      standard error.

  Raises:
    FileNotFoundError: if there is nothing.
    config.ForeignFileError: if it can't be read; the message says why.
  """
  if which not in WHICH:
    raise ValueError(f"which={which!r} must be one of {', '.join(WHICH)}")
  name = os.fspath(source)
  with foreign(name):
    found, notes = _read(name, which)
    found, more = _with_prefix(found)
  say = say or functools.partial(print, file=sys.stderr)
  for note in (*notes, *more):
    say(f"{name}: {note}")
  return found


# --- In this order: the Hub, what comes with the package, runs (local or
# remote), folders, files.
def _read(name: str, which: Which) -> tuple[FoundWeights, tuple[str, ...]]:
  if name.startswith(_HUB):
    return _read_folder(name, _download(name), which)
  if name.startswith(teaching.PREFIX):
    path, row = teaching.find(name)
    content = files.read(path)
    labels = _labels(name, {"id2label": _json(content.metadata)})
    found = FoundWeights(
      name,
      content.tensors,
      labels,
      crop=dict(row.crop),
      output_stride=_stride(name, content.metadata),
      file=path,
    )
    return found, ()
  scheme, mark, _ = name.partition("://")
  if mark and scheme not in _REMOTE:
    raise ValueError(
      f"{name}: {scheme}:// is not read from: download it, and give the file"
    )
  own_files.check_reachable(name)
  # The one kind that may be remote, and that must not go through pathlib,
  # which would make one slash of gs://'s two.
  try:
    workdir = epath.Path(name)
    folder = _FOLDERS.get(workdir.name)
    if folder and (workdir.parent / "checkpoints").exists():
      workdir, which = workdir.parent, folder if which == "auto" else which
    is_run = (workdir / "checkpoints").exists()
  # Without its library, the network or rights: unrelated error types.
  except Exception as error:
    if not mark:
      raise
    reason = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(f"{name} can't be reached: {reason}") from error
  if is_run:
    return _read_workdir(name, workdir, which), ()
  if mark:
    raise FileNotFoundError(f"{name}: there is no run, or it can't be reached")
  path = pathlib.Path(name).expanduser()
  if path.is_dir():
    return _read_folder(name, path, which)
  content = files.read(path, which=which)
  labels = _labels(name, {"id2label": _json(content.metadata)})
  stride = _stride(name, content.metadata)
  found = FoundWeights(
    name, content.tensors, labels, output_stride=stride, file=path
  )
  return found, content.notes


def _with_prefix(found: FoundWeights) -> tuple[FoundWeights, tuple[str, ...]]:
  """A backbone of transformers saved alone has no model's name before it."""
  stem = "conv_stem.convolution.weight"
  if stem not in found.tensors:
    return found, ()
  options = [
    {f"{prefix}.{key}": value for key, value in found.tensors.items()}
    # A backbone alone: both families' names are tried.
    for prefix in ("mobilevit", "mobilevitv2")
  ]
  tensors = max(options, key=names.known)
  note = (
    "a net of transformers without a head: the head has to start anew "
    "(weights.reset)"
  )
  return dataclasses.replace(found, tensors=tensors), (note,)


def _json(metadata: dict[str, str]) -> Any:
  try:
    return json.loads(metadata.get("id2label", "null"))
  except (ValueError, RecursionError):
    return None


def _download(name: str) -> pathlib.Path:
  try:
    huggingface_hub = importlib.import_module("huggingface_hub")
  except ImportError as error:
    raise ValueError(
      f"{name} needs huggingface_hub (pip install huggingface_hub)"
    ) from error
  # hf://owner/name@revision, as in git.
  repo, _, revision = name.removeprefix(_HUB).partition("@")
  if repo.count("/") != 1:
    raise ValueError(f"{name} must have the form hf://owner/name[@revision]")
  try:
    folder = huggingface_hub.snapshot_download(
      repo,
      # Weights and configuration, without the other formats that a repository
      # may have.
      revision=revision or None,
      allow_patterns=["model.safetensors", "config.json"],
    )
  # Network, proxy, login and missing repositories: unrelated error types.
  except Exception as error:
    raise ValueError(f"{name} can't be downloaded: {error}") from error
  return pathlib.Path(folder)


def _read_folder(
  name: str, folder: pathlib.Path, which: Which
) -> tuple[FoundWeights, tuple[str, ...]]:
  file = folder / "model.safetensors"
  content = files.read(file, which=which)
  config = {"id2label": _json(content.metadata)}
  path = folder / "config.json"
  if path.is_file():
    config |= _read_json(name, path)
  labels = _labels(name, config)
  stride = _stride(name, {**config, **content.metadata})
  found = FoundWeights(
    name, content.tensors, labels, output_stride=stride, file=file
  )
  return found, content.notes


def _read_json(name: str, path: Any) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{name}: {path.name} is no JSON: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"{name}: {path.name} must hold an object")
  return content


def _labels(name: str, config: dict[str, Any]) -> tuple[str, ...] | None:
  """Transformers' `id2label`, or timm's `label_names`."""
  labels = config.get("id2label") or config.get("label_names")
  if labels is None:
    return None
  if isinstance(labels, dict):
    try:
      # JSON's keys are strings: "0" to 0.
      by_id = {int(key): value for key, value in labels.items()}
      labels = [by_id[index] for index in range(len(by_id))]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"{name}: id2label must number its {len(labels)} classes from 0"
      ) from error
  return check_labels(name, labels)


def _stride(name: str, said: dict[str, Any]) -> int | None:
  """What our files' metadata and transformers' config.json may say."""
  stride = said.get("output_stride")
  if stride is None:
    return None
  if str(stride) not in ("8", "16", "32"):
    raise ValueError(f"{name}: output_stride={stride!r} must be 8, 16 or 32")
  return int(stride)


def check_labels(name: str, labels: Any) -> tuple[str, ...]:
  """Class names in order, or a ValueError that says whose they are."""
  if not isinstance(labels, Sequence) or isinstance(labels, str):
    raise ValueError(f"{name}: the class names must be a list")
  if not all(isinstance(label, str) for label in labels):
    raise ValueError(f"{name}: every class name must be a string")
  return tuple(labels)


def _read_workdir(name: str, workdir: epath.Path, which: Which) -> FoundWeights:
  path = workdir / "config.json"
  if not path.exists():
    raise ValueError(f"{name}: a run's folder needs its config.json")
  config = _read_json(name, path)
  check_version(config, name)
  fields = config.get("model")
  if not isinstance(fields, dict):
    raise ValueError(f"{name}: config.json has no 'model' of arguments")
  # None stands for a default in our configurations, and isn't an argument.
  fields = {k: v for k, v in fields.items() if v is not None}
  if which == "auto":
    early_stop = config.get("early_stop")
    # A run that stops early has passed its best weights by then.
    stops_early = (
      isinstance(early_stop, dict) and early_stop.get("patience") is not None
    )
    which = "best" if stops_early else "ema"
  try:
    params, stats = trees.split(models.abstract_model(**fields))
  # The arguments may be of any type, and are passed on to every layer.
  except Exception as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(
      f"{name}: config.json has a 'model' that can't be made: {reason}"
    ) from error
  # On one device, whatever mesh the run was on.
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
    (params, stats),
  )
  # Imported late: Orbax takes a second, and files don't need it.
  from mobilevit_jax.run import checkpoint

  # Only reading: a run that is at work in the folder isn't disturbed.
  checkpoints = checkpoint.Checkpoints(workdir, create=False)
  try:
    step, *restored = checkpoints.restore_weights(*shapes, which=which)
  finally:
    checkpoints.close()
  params, stats = restored
  # A run's tensors have the names that a file of ours gives them.
  flat = trees.flatten(params) | trees.flatten(stats)
  labels_file = workdir / "labels.json"
  labels = None
  if labels_file.exists():
    with foreign(f"{name}: {labels_file.name}"):
      labels = check_labels(name, json.loads(labels_file.read_text()))
  return FoundWeights(
    name,
    {net.public_name(path): np.asarray(leaf) for path, leaf in flat.items()},
    labels,
    fields,
    _crop(config),
    config,
    which=which,
    step=step,
  )


def _crop(config: dict[str, Any]) -> dict[str, Any]:
  """What of a run's configuration says how images are cropped."""
  transform, evaluation = (
    section if isinstance(section := config.get(name), dict) else {}
    for name in ("transform", "eval")
  )
  fields = {**transform, "size": evaluation.get("size")}
  kinds = {"preset": str, "size": int, "resize_size": int}
  return {
    name: fields[name]
    for name, kind in kinds.items()
    if isinstance(fields.get(name), kind)
  }
