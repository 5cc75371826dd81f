"""Whatever lies in a file from elsewhere is read, or refused by one error."""

import io
import json
import struct
import zipfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from mobilevit_jax import config
from mobilevit_jax import models
from mobilevit_jax.weights import io as weights_io
from mobilevit_jax.weights import source

# The same cases at each run, so that a change is to blame for what is new.
FUZZ = hypothesis.settings(
  max_examples=100,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=[*hypothesis.HealthCheck],
)
MODEL = models.abstract_model("mobilevit_xxs", num_classes=3)
NAMES = st.sampled_from(
  ["stem.bn.bias", "backbone/stem/norm/bias", "module.a", "a", "conv_stem"]
)
JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats()
  | st.text(max_size=5)
  | st.sampled_from(["mobilevit_xxs", "F32", "classifier", 2**63, -1, 1e999]),
  lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner)
  ),
  max_leaves=6,
)
FIELDS = st.sampled_from(
  ["version", "model", "name", "head", "num_classes", "early_stop", "eval"]
)


def _refused_or_read(path):
  """Reads as a command does: no error but the one, and a missing file's."""
  try:
    found = source.read_weights(path, say=lambda _: None)
    weights_io.find_model(found)
    weights_io.decode(found.tensors, MODEL, name=found.name)
  except (config.UserError, ValueError) as error:
    assert str(error)
    # What comes after reading names fields; a library's own error would not.
    assert isinstance(error, config.UserError) or "\n  " in str(error), error


def _safetensors(header, data):
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def _npz(members):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for name, content in members:
      archive.writestr(name, content)
  return file.getvalue()


def _npy(version, header, data):
  text = header.encode()
  return (
    b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + (text + data)
  )


def _sound():
  """A small file of each kind."""
  array = np.arange(6, dtype=np.float32)
  file = io.BytesIO()
  np.savez(file, **{"stem.bn.bias": array})
  entry = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
  header = {"stem.bn.bias": entry, "__metadata__": {"id2label": "[]"}}
  return {
    "npz": file.getvalue(),
    "safetensors": _safetensors(header, array.tobytes()),
  }


SOUND = _sound()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("fuzz")


@FUZZ
@hypothesis.given(
  suffix=st.sampled_from(["npz", "safetensors", "pt", "bin", "txt"]),
  content=st.binary(max_size=300),
)
def test_any_bytes(folder, suffix, content):
  path = folder / f"bytes.{suffix}"
  path.write_bytes(content)
  _refused_or_read(path)


@FUZZ
@hypothesis.given(data=st.data(), suffix=st.sampled_from(sorted(SOUND)))
def test_spoilt_bytes(folder, data, suffix):
  content = bytearray(SOUND[suffix])
  for _ in range(data.draw(st.integers(1, 4))):
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
  path = folder / f"spoilt.{suffix}"
  path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
  _refused_or_read(path)


@FUZZ
@hypothesis.given(
  entries=st.dictionaries(
    NAMES | st.just("__metadata__"),
    JSON
    | st.fixed_dictionaries(
      {
        "dtype": st.sampled_from(["F32", "BF16", "F64", "I64", "U8"]) | JSON,
        "shape": st.lists(st.integers(-1, 9), max_size=5) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), max_size=3) | JSON,
      }
    ),
    max_size=3,
  ),
  content=st.binary(max_size=40),
)
def test_edited_safetensors_header(folder, entries, content):
  path = folder / "header.safetensors"
  path.write_bytes(_safetensors(entries, content))
  _refused_or_read(path)


@FUZZ
@hypothesis.given(
  name=NAMES,
  version=st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]),
  kind=st.sampled_from(["<f4", "<f8", "|O", "<U9", "|V8", "<c8", "nonsense"]),
  shape=st.lists(st.integers(-2, 2**40), max_size=3).map(tuple) | JSON,
  content=st.binary(max_size=40),
)
def test_edited_npy_header(folder, name, version, kind, shape, content):
  header = {"descr": kind, "fortran_order": False, "shape": shape}
  member = _npy(version, repr(header) + "\n", content)
  path = folder / "header.npz"
  path.write_bytes(_npz([(f"{name}.npy", member)]))
  _refused_or_read(path)


@hypothesis.settings(FUZZ, max_examples=40)
@hypothesis.given(
  config_json=st.dictionaries(
    FIELDS, JSON | st.dictionaries(FIELDS, JSON), max_size=4
  ),
  text=st.binary(max_size=20),
)
def test_edited_folders(folder, config_json, text):
  """A run that holds no checkpoint, and a folder of transformers."""
  for place, inside in (("run", "checkpoints"), ("hf", "more")):
    (folder / place / inside).mkdir(parents=True, exist_ok=True)
    file = folder / place / "config.json"
    file.write_text(json.dumps(config_json | {"version": "0.2.0"}))
    (folder / place / "labels.json").write_bytes(text)
    weights = folder / place / "model.safetensors"
    weights.write_bytes(SOUND["safetensors"])
    _refused_or_read(folder / place)
