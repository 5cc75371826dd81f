"""Damaged and hostile files of weights give a clear error."""

import io
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mobilevit_jax import create_model
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import trees

NAME, CLASSES = "mobilevit_xxs", 7


@pytest.fixture(scope="module")
def model():
  return create_model(NAME, num_classes=CLASSES, seed=3)


@pytest.fixture(scope="module")
def blank():
  return create_model(NAME, num_classes=CLASSES, seed=4)


@pytest.fixture
def timm_file(model, tmp_path):
  path = tmp_path / "timm.safetensors"
  save_weights(model, path, to="timm")
  return path


def safetensors_bytes(header: bytes, data: bytes = b"", length=None) -> bytes:
  return struct.pack("<Q", len(header) if length is None else length) + (
    header + data
  )


def entry(shape: str, end: int, dtype: str = "F32") -> str:
  return f'{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, {end}]}}'


HOSTILE = {
  "empty": (b"", "header of 0 bytes in a file of 0"),
  "long header": (safetensors_bytes(b"{}", length=10**9), "a header of 1000"),
  "no JSON": (safetensors_bytes(b"{nonsense"), "damaged safetensors header"),
  "deep JSON": (safetensors_bytes(b'{"a":' * 10**5), "damaged safetensors"),
  "a list": (safetensors_bytes(b"[]"), "damaged safetensors header"),
  "negative": (
    safetensors_bytes(f'{{"a": {entry("[-1, 4]", 4)}}}'.encode(), b"0" * 4),
    r"a has the impossible shape \[-1, 4\]",
  ),
  "huge": (
    safetensors_bytes(f'{{"a": {entry("[1000000, 1000000]", 4)}}}'.encode()),
    "needs 4000000000000 bytes, not 4",
  ),
  "beyond the end": (
    safetensors_bytes(
      f'{{"a": {entry("[1000000000000]", 4 * 10**12)}}}'.encode()
    ),
    "damaged safetensors file",
  ),
  "twice": (
    safetensors_bytes(
      f'{{"a": {entry("[1]", 4)}, "a": {entry("[1]", 4)}}}'.encode(), b"0" * 4
    ),
    "duplicate keys a",
  ),
  "type": (
    safetensors_bytes(f'{{"a": {entry("[1]", 1, "F8_E5M2")}}}'.encode(), b"0"),
    "a has type F8_E5M2",
  ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_safetensors(blank, tmp_path, kind):
  content, message = HOSTILE[kind]
  path = tmp_path / "w.safetensors"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    load_weights(blank, path)
  assert str(path) in str(error.value)


def test_bfloat16_is_read(model, blank, timm_file):
  tensors = safetensors.numpy.load_file(timm_file)
  halves = {
    key: value.astype(jnp.bfloat16) if value.dtype == np.float32 else value
    for key, value in tensors.items()
  }
  safetensors.numpy.save_file(halves, timm_file)
  assert b"BF16" in timm_file.read_bytes()
  expected = trees.flat_model(model)
  for path, value in trees.flat_model(load_weights(blank, timm_file)).items():
    assert value.dtype == jnp.float32
    rounded = expected[path].astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(value, rounded, path)


def test_prefix_of_every_name_is_left_out(blank, timm_file, capsys):
  tensors = safetensors.numpy.load_file(timm_file)
  wrapped = {f"module.{key}": value for key, value in tensors.items()}
  safetensors.numpy.save_file(wrapped, timm_file)
  load_weights(blank, timm_file)
  assert "left 'module.' out of every tensor's name" in capsys.readouterr().err


@pytest.mark.parametrize("name", [NAME, "mobilevitv2_050"])
def test_backbone_of_transformers_needs_another_head(name, tmp_path, capsys):
  model = create_model(name, num_classes=CLASSES, seed=3)
  path = tmp_path / "hf.safetensors"
  save_weights(model, path, to="hf")
  tensors = safetensors.numpy.load_file(path)
  family = name.partition("_")[0]
  alone = {
    key.removeprefix(f"{family}."): value
    for key, value in tensors.items()
    if key.startswith(f"{family}.")
  }
  assert len(alone) == len(tensors) - 2
  safetensors.numpy.save_file(alone, path)
  with pytest.raises(ValueError, match=r"missing: classifier\.weight"):
    load_weights(model, path)
  assert "without a head" in capsys.readouterr().err
  other = create_model(name, num_classes=3, seed=4)
  loaded = trees.flat_model(load_weights(other, path, reset="classifier"))
  for key, value in trees.flat_model(model).items():
    if not key.startswith("head/classifier"):
      np.testing.assert_array_equal(loaded[key], value, key)


def test_numbers_beyond_float32_are_refused(blank, timm_file):
  tensors = safetensors.numpy.load_file(timm_file)
  large = tensors["stem.bn.bias"].astype(np.float64)
  large[2] = 1e300
  safetensors.numpy.save_file(tensors | {"stem.bn.bias": large}, timm_file)
  with pytest.raises(ValueError, match=r"stem\.bn\.bias holds numbers beyond"):
    load_weights(blank, timm_file)


@pytest.mark.parametrize(
  ("source", "message"),
  [
    (
      "https://example.org/w.safetensors",
      "https:// is not read from: download",
    ),
    ("s3://none/run", "s3://none/run"),
    ("gs://none/run", "gs://none/run"),
  ],
)
def test_sources_elsewhere(blank, monkeypatch, source, message):
  def unreachable(*unused):
    raise KeyError("s3")  # as where fsspec has no library for it

  monkeypatch.setattr("etils.epath.gpath.PosixGPath.exists", unreachable)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    load_weights(blank, source)


def test_truncated_at_any_place(blank, timm_file):
  content = timm_file.read_bytes()
  for part in (4, 100, len(content) // 2, len(content) - 1):
    timm_file.write_bytes(content[:part])
    with pytest.raises(ValueError, match="damaged safetensors"):
      load_weights(blank, timm_file)


def npy(shape: tuple[int, ...], data: bytes, descr: str = "<f4") -> bytes:
  header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"
  header = header.ljust(117) + "\n"
  return (
    b"\x93NUMPY\x01\x00"
    + struct.pack("<H", len(header))
    + (header.encode() + data)
  )


def pickled() -> bytes:
  file = io.BytesIO()
  np.save(file, np.array([print], object), allow_pickle=True)
  return file.getvalue()


@pytest.mark.parametrize(
  ("members", "message"),
  (
    ([("a.npy", npy((10**6, 10**6), b"0" * 8))], "does not fit"),
    ([("a.npy", npy((-1,), b"0" * 8))], "impossible shape"),
    ([("a.npy", pickled())], "holds Python objects"),
    ([("a.npy", b"no array")], "damaged npz"),
  ),
)
def test_hostile_npz(blank, tmp_path, members, message):
  path = tmp_path / "w.npz"
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in members:
      archive.writestr(name, content)
  with pytest.raises(ValueError, match=message):
    load_weights(blank, path)


def test_npz_with_a_name_twice(blank, tmp_path):
  path = tmp_path / "w.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a.npy", npy((1,), b"0000"))
    archive.writestr("b.npy", npy((1,), b"0000"))
  path.write_bytes(path.read_bytes().replace(b"b.npy", b"a.npy"))
  with pytest.raises(ValueError, match=r"duplicate keys a\.npy"):
    load_weights(blank, path)


def test_truncated_npz(blank, model, tmp_path):
  path = tmp_path / "w.npz"
  save_weights(model, path)
  path.write_bytes(path.read_bytes()[:100_000])
  with pytest.raises(ValueError, match="damaged npz"):
    load_weights(blank, path)
