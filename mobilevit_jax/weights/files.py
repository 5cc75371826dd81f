"""Files of tensors: safetensors, npz and PyTorch in; the first two out.

A file from elsewhere is hostile until read: sizes are checked before memory is
taken, and nothing is unpickled but PyTorch's own files, by PyTorch, with
`weights_only=True`. Every complaint is a `config.ForeignFileError` that names
the file.
"""

from collections.abc import Mapping
import contextlib
import importlib
import json
import math
import pathlib
from typing import Any, NamedTuple
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from mobilevit_jax import config
from mobilevit_jax import files

# Whatever a file's order or layout, below here its tensors are NumPy arrays by
# name.
Tensors = dict[str, np.ndarray]

# The largest MobileViT takes 22 MB; a file that claims a hundred times as
# much is no weights of ours, and a small zip archive can claim anything.
MAX_BYTES = 2 << 30
_MAX_HEADER = 10 << 20
_BFLOAT16 = np.dtype(jnp.bfloat16)
_DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": _BFLOAT16,
  "I64": np.dtype("<i8"),
}
# Where training programs put weights: the raw ones, and their averages.
_RAW = ("state_dict", "model_state_dict", "model")
_EMA = ("state_dict_ema", "ema_state_dict", "model_ema")
# What DistributedDataParallel and torch.compile put before each name.
_WRAPPERS = ("module.", "_orig_mod.")
_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin")


class Content(NamedTuple):
  """What a file holds.

  Attributes:
    tensors: by name.
    metadata: the file's own.
    notes: what was chosen or changed while reading, a line each.
  """

  tensors: Tensors
  metadata: dict[str, str]
  notes: tuple[str, ...] = ()


def read(path: pathlib.Path, *, which: str = "auto") -> Content:
  """Reads a file.

  Args:
    path: the file.
    which: of PyTorch's files that hold averaged weights beside the raw ones,
      `"ema"` or `"raw"`; `"auto"` is the averaged ones.

  Raises:
    FileNotFoundError: if there is no such file.
    config.ForeignFileError: if it is of no known kind, damaged, or not what it
      claims.
  """
  if not path.is_file():
    raise FileNotFoundError(f"{path}: there is no such file")
  with config.foreign(path):
    if path.suffix not in _SUFFIXES:
      raise ValueError(f"{path}: must end in one of {', '.join(_SUFFIXES)}")
    if path.suffix in (".pt", ".pth", ".bin"):
      content = _read_torch(path, which)
    elif which != "auto":
      # Files with one set of weights can't be asked for another.
      raise ValueError(
        f"{path}: which={which!r} asks for one of several sets of weights, and "
        "the file holds one"
      )
    elif path.suffix == ".npz":
      content = Content(_read_npz(path), {})
    else:
      content = _read_safetensors(path)
    if not content.tensors:
      raise ValueError(f"{path}: holds no tensors")
    # A name goes into messages, and a terminal obeys control characters.
    for name in content.tensors:
      if not name.isprintable():  # it will be in messages
        raise ValueError(f"{path}: a tensor is called {name!r}")
    return _without_prefix(content)


def _without_prefix(content: Content) -> Content:
  """Without what wrappers of PyTorch put before every name."""
  tensors, _, notes = content
  # Twice, as both wrappers may be around a net, in either order.
  for prefix in _WRAPPERS * 2:
    if all(name.startswith(prefix) for name in tensors):
      tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
      notes = (*notes, f"left {prefix!r} out of every tensor's name")
  return content._replace(tensors=tensors, notes=notes)


def _read_safetensors(path: pathlib.Path) -> Content:
  metadata = _check_header(path)
  try:
    # From memory: a mapped file that is cut short later ends the process.
    entries = safetensors.deserialize(path.read_bytes())
  except (safetensors.SafetensorError, ValueError) as error:
    raise ValueError(f"{path}: damaged safetensors file: {error}") from error
  tensors = {}
  for name, entry in entries:
    data = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
    tensors[name] = _as_numpy(data.reshape(entry["shape"]))
  return Content(tensors, metadata)


def _as_numpy(value: np.ndarray) -> np.ndarray:
  """Of bfloat16, which NumPy has not, the same values as float32."""
  return value.astype(np.float32) if value.dtype == _BFLOAT16 else value


def _check_header(path: pathlib.Path) -> dict[str, str]:
  """Refuses what the library would let pass or report obscurely."""
  size = path.stat().st_size
  # The format: 8 bytes of length, a JSON header of names, types, shapes and
  # offsets, then the values.
  with path.open("rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER):
      raise ValueError(
        f"{path}: damaged safetensors file: a header of {length} bytes in a "
        f"file of {size}"
      )
    text = file.read(length)
  try:
    header = json.loads(text, object_pairs_hook=_unique_keys)
    metadata = header.pop("__metadata__", {})
    for name, entry in header.items():
      _check_entry(name, entry)
    metadata = {str(key): str(value) for key, value in metadata.items()}
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
    raise ValueError(f"{path}: damaged safetensors header: {e}") from e
  return metadata


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  result = dict(pairs)
  if len(result) != len(pairs):
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    raise ValueError(f"duplicate keys {', '.join(twice)}")
  return result


def _check_entry(name: str, entry: dict[str, Any]) -> None:
  if entry["dtype"] not in _DTYPES:
    raise ValueError(
      f"{name} has type {entry['dtype']}, not one of {', '.join(_DTYPES)}"
    )
  _check_shape(name, entry["shape"])
  # The library checks offsets against the file, but not against the shape.
  start, end = entry["data_offsets"]
  need = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
  if end - start != need:
    raise ValueError(
      f"{name} of shape {entry['shape']} needs {need} bytes, not {end - start}"
    )


def _check_shape(name: str, shape: Any) -> None:
  # NumPy itself has no more than 64 axes, and no net has 8.
  if not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 8:
    raise ValueError(f"{name} has the impossible shape {shape}")


def _read_npz(path: pathlib.Path) -> Tensors:
  try:
    with zipfile.ZipFile(path) as archive:
      infos = archive.infolist()
      _unique_keys([(info.filename, info) for info in infos])
      total = sum(info.file_size for info in infos)
      # A zip's directory says how large its members are when unpacked: a file
      # of a kilobyte may claim terabytes.
      if total > MAX_BYTES:
        raise ValueError(f"claims {total} bytes, more than {MAX_BYTES}")
      return {
        info.filename.removesuffix(".npy"): _read_npy(archive, info)
        for info in infos
      }
  # Zip errors come in many kinds: encrypted, unknown methods, bad checksums.
  except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
    raise ValueError(f"{path}: damaged npz file: {error}") from error
  except (NotImplementedError, RuntimeError, zlib.error) as error:
    raise ValueError(f"{path}: damaged npz file: {error}") from error


def _read_npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
  """One member; numpy alone would take the memory that its header asks for."""
  with archive.open(info) as file:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
      shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
      shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    _check_shape(info.filename, shape)
    if dtype.hasobject:
      raise ValueError(f"{info.filename} holds Python objects")
    # The header's shape, against the bytes that the member really has.
    if math.prod(shape) * dtype.itemsize > info.file_size:
      raise ValueError(
        f"{info.filename} of shape {shape} does not fit {info.file_size} bytes"
      )
  with archive.open(info) as file:
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_torch(path: pathlib.Path, which: str) -> Content:
  try:
    torch = importlib.import_module("torch")  # an extra
  except ImportError as error:
    raise ValueError(
      f"{path}: reading PyTorch's own files needs PyTorch (pip install torch); "
      "a .safetensors file does not"
    ) from error
  try:
    content = torch.load(path, map_location="cpu", weights_only=True)
  # PyTorch answers bad files with errors of at least six unrelated types.
  except Exception as error:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise ValueError(
      f"{path}: not a file of PyTorch weights: {reason}"
    ) from error
  if not isinstance(content, Mapping):
    raise ValueError(f"{path}: holds a {type(content).__name__}, not a dict")
  content, notes = _chosen(path, content, which)
  total, tensors = 0, {}
  for key, value in content.items():
    if not torch.is_tensor(value):
      others = [str(k) for k, v in content.items() if not torch.is_tensor(v)]
      raise ValueError(f"{path}: not tensors: {', '.join(others)}")
    kind = _kind_of_torch(torch, value)
    if kind:
      raise ValueError(f"{path}: {key} is {kind}: save it as a dense tensor")
    # `expand` makes views of any size from one number; counting them is the
    # check.
    # A view may repeat one number as often as it likes.
    total += value.numel() * value.element_size()
    if total > MAX_BYTES:
      raise ValueError(f"{path}: holds more than {MAX_BYTES} bytes")
    # Conjugate and negative views are lazy in PyTorch, and have no NumPy form.
    value = value.detach().resolve_conj().resolve_neg()
    if value.dtype == torch.bfloat16:
      value = value.float()
    tensors[str(key)] = value.numpy()
  return Content(tensors, {}, notes)


def _kind_of_torch(torch: Any, value: Any) -> str:
  """What keeps a tensor from being an array; empty where nothing does."""
  if value.is_meta:
    return "on the meta device, without values"
  if value.is_quantized:
    return "quantised"
  return "" if value.layout == torch.strided else "sparse"


def _chosen(
  path: pathlib.Path, content: Mapping[Any, Any], which: str
) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
  """The weights in what a training program saved, and a note on a choice."""
  # Training programs save a dict of several things; the weights are under one
  # of a few usual keys.
  found: dict[str, Mapping[Any, Any]] = {}
  for name, keys in (("ema", _EMA), ("raw", _RAW)):
    for key in keys:
      if isinstance(content.get(key), Mapping):
        found.setdefault(name, content[key])
  if which not in ("auto", *found):
    there = " and ".join(found) or "one set of"
    raise ValueError(
      f"{path}: which={which!r} is not in the file, which holds {there} weights"
    )
  if not found:
    return content, ()
  # The averages, as they are what evaluation reports.
  chosen = next(iter(found)) if which == "auto" else which
  notes = ()
  if len(found) > 1:
    what = {"ema": "averaged (EMA)", "raw": "raw"}
    other = "raw" if chosen == "ema" else "ema"
    notes = (f"took its {what[chosen]} weights; which={other} takes the other",)
  # timm's averages are those of a whole checkpoint.
  inner = found[chosen]
  for key in _RAW:
    if isinstance(inner.get(key), Mapping):
      inner = inner[key]
  return inner, notes


def write(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
  *,
  force: bool = False,
) -> None:
  """Writes a `.safetensors` or `.npz` file; it appears whole or not at all.

  Raises:
    FileExistsError: if the file exists, without `force`.
    ValueError: for another ending.
  """
  if path.suffix not in (".safetensors", ".npz"):
    raise ValueError(f"{path}: must end in .safetensors or .npz")
  with files.whole(path, force=force) as temporary:
    if path.suffix == ".npz":
      with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **tensors)
    else:
      # Not by the library's save_file, which makes the file private.
      data = safetensors.numpy.save(dict(tensors), dict(metadata))
      temporary.write_bytes(data)


def write_folder(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
  documents: Mapping[str, Any],
  *,
  force: bool = False,
) -> None:
  """Writes `model.safetensors` and JSON documents, by file name, into a folder.

  A new folder appears whole. Into one that exists, with `force`, each file is
  replaced as a whole, and what else lies there is left alone.
  """
  files.check_free(path, force)
  target = contextlib.nullcontext(path) if path.exists() else files.whole(path)
  with target as folder:
    folder.mkdir(exist_ok=True)
    write(folder / "model.safetensors", tensors, metadata, force=True)
    for name, document in documents.items():
      files.write_text(folder / name, json.dumps(document, indent=2) + "\n")
