"""The table of names against the key tables and the models."""

import functools
import json
import pathlib

import numpy as np
import pytest

from mobilevit_jax import models
from mobilevit_jax.weights import names
from mobilevit_jax.weights import trees
from tests import tiny

ROWS = names.TABLES["mobilevit"]["classifier"]
STEM = "backbone/stem/conv/kernel"
# Parameters and running statistics.
TENSORS = {
  "mobilevit": 279,
  "mobilevitv2": 244,
  "mobilevitv3": 279,
  "mobilevitv3_l2": 255,
  "mobilevitv3_v2": 244,
}
SPEC = pathlib.Path(__file__).resolve().parents[3] / "shared/spec"

# What the published state dicts are known by, where no key table is at hand.
KNOWN = {
  STEM: (
    "conv_1.block.conv.weight",
    "stem.conv.weight",
    "mobilevit.conv_stem.convolution.weight",
  ),
  "backbone/stage2/2/depthwise/kernel": (
    "layer_2.2.block.conv_3x3.block.conv.weight",
    "stages.1.2.conv2_kxk.conv.weight",
    "mobilevit.encoder.layer.1.layer.2.conv_3x3.convolution.weight",
  ),
  "backbone/stage4/0/project/norm/var": (
    "layer_4.0.block.red_1x1.block.norm.running_var",
    "stages.3.0.conv3_1x1.bn.running_var",
    "mobilevit.encoder.layer.3.downsampling_layer.reduce_1x1.normalization"
    ".running_var",
  ),
  "backbone/stage5/1/norm/scale": (
    "layer_5.1.global_rep.3.weight",
    "stages.4.1.norm.weight",
    "mobilevit.encoder.layer.4.layernorm.weight",
  ),
  "backbone/stage3/1/global_rep/1/ffn_out/bias": (
    "layer_3.1.global_rep.1.pre_norm_ffn.4.bias",
    "stages.2.1.transformer.1.mlp.fc2.bias",
    "mobilevit.encoder.layer.2.transformer.layer.1.output.dense.bias",
  ),
  "head/classifier/bias": (
    "classifier.fc.bias",
    "head.fc.bias",
    "classifier.bias",
  ),
}


@functools.cache
def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
  flat = trees.flat_model(models.abstract_model(name))
  return {path: leaf.shape for path, leaf in flat.items()}


def test_every_family_has_its_tables():
  families = tiny.published_families()
  assert names.TABLES.keys() == families.keys()
  for tables in names.TABLES.values():
    # Files of ours need no table: some heads were published for few families.
    assert "classifier" in tables and tables.keys() <= models.HEADS.keys()
  for name, family in families.items():
    assert family.name == name and family.variants
    assert set(family.bgr) < set(names.DIALECTS)


@pytest.mark.parametrize("name", models.VARIANTS)
def test_table_is_the_model(name):
  family = models.family_of(name).name
  rows = names.TABLES[family]["classifier"]
  assert set(names.table(models.abstract_model(name))) == set(rows)
  paths = [row.path for row in rows]
  assert len(paths) == len(set(paths)) == TENSORS[family]
  assert set(paths) == set(shapes_of(name))


@pytest.mark.parametrize("path", KNOWN)
def test_known_names(path):
  row = {row.path: row for row in ROWS}[path]
  assert (row.cvnets, row.timm, *row.hf) == KNOWN[path]


def test_fused_attention_is_three_tensors_of_hf():
  row = {row.path: row for row in ROWS}[
    "backbone/stage3/1/global_rep/0/attention/qkv/kernel"
  ]
  assert [name.split(".")[-2] for name in row.hf] == ["query", "key", "value"]
  shapes = names.dialect_shapes(row, (64, 192), "hf")
  assert list(shapes.values()) == [(64, 64)] * 3


@pytest.mark.parametrize("name", models.FAMILIES["mobilevit"].variants)
def test_key_tables(name):
  file = SPEC / f"keys_{name}.json"
  if not file.exists():
    pytest.skip("no key tables here")
  entries = json.loads(file.read_text())
  rows = {row.cvnets: row for row in ROWS}
  shapes = shapes_of(name)
  assert len(entries) == len(rows)
  for entry in entries:
    row = rows[entry["cvnets"]]
    hf = entry["hf"] if isinstance(entry["hf"], list) else [entry["hf"]]
    assert (row.timm, list(row.hf)) == (entry["timm"], hf)
    expected = names.dialect_shapes(row, shapes[row.path], "cvnets")
    assert expected == {row.cvnets: tuple(entry["shape"])}


@pytest.mark.parametrize("width", ("050", "100"))
def test_key_tables_of_v2(width):
  file = SPEC / f"keys_mobilevitv2_{width}.json"
  if not file.exists():
    pytest.skip("no key tables here")
  shapes = shapes_of(f"mobilevitv2_{width}")
  found = {
    (name, row.timm, *row.hf, shape)
    for row in names.TABLES["mobilevitv2"]["classifier"]
    for name, shape in names.dialect_shapes(
      row, shapes[row.path], "cvnets"
    ).items()
  }
  assert found == {
    (*known, tuple(shape))
    for *known, shape in json.loads(file.read_text())["tensors"]
    if not known[0].endswith(".num_batches_tracked")
  }


V3 = {
  "mobilevitv3_xxs": "xx_small_v3",
  "mobilevitv3_s": "small_v3",
  "mobilevitv3_050": "0.5",
  "mobilevitv3_100": "1.0",
}


@pytest.mark.parametrize("name", V3)
def test_key_tables_of_v3(name):
  file = SPEC / "keys_mobilevitv3.json"
  if not file.exists():
    pytest.skip("no key tables here")
  published = {
    key: tuple(shape)
    for key, shape in json.loads(file.read_text())[V3[name]].items()
    if not key.endswith(".num_batches_tracked")
  }
  shapes = shapes_of(name)
  found = {}
  for row in names.TABLES[models.family_of(name).name]["classifier"]:
    found |= names.dialect_shapes(row, shapes[row.path], "cvnets")
  assert found == published
  # It has the names of another family, and is told from it by its shapes.
  tensors = {key: np.zeros(shape) for key, shape in published.items()}
  assert names.closest(tensors, names.kind(tensors)) == (1.0, name)


@pytest.mark.parametrize("dialect", names.DIALECTS[:4])
@pytest.mark.parametrize("name", models.VARIANTS)
def test_every_variant_is_told_from_the_others(name, dialect):
  shapes = shapes_of(name)
  tensors = {}
  for row in names.TABLES[models.family_of(name).name]["classifier"]:
    if all(row.names(dialect)):
      for key, shape in names.dialect_shapes(
        row, shapes[row.path], dialect
      ).items():
        tensors[key] = np.broadcast_to(np.float32(0), shape)
  if tensors:  # timm and transformers have no v3
    kind = names.kind(tensors)
    family = models.family_of(name).name
    assert kind == (family, "classifier", dialect)
    assert names.closest(tensors, kind) == (1.0, name)
  else:
    assert dialect in ("timm", "hf") and "v3" in name


@pytest.mark.parametrize("dialect", names.DIALECTS[:4])
def test_v2_is_rgb_in_every_dialect(dialect):
  (row,) = (
    row for row in names.TABLES["mobilevitv2"]["classifier"] if row.path == STEM
  )
  kernel = np.random.default_rng(0).random((3, 3, 3, 16))
  (tensor,) = names.to_dialect({STEM: kernel}, [row], dialect).values()
  red = tensor[..., 0, :] if dialect == "jax" else tensor[:, 0].T
  np.testing.assert_array_equal(
    np.sort(red, None), np.sort(kernel[..., 0, :], None)
  )


def test_layouts():
  rows = {row.path: row for row in ROWS}
  kernel = np.arange(3 * 3 * 3 * 16.0).reshape(3, 3, 3, 16)
  row = rows[STEM]
  timm, cvnets = np.zeros((16, 3, 3, 3)), np.zeros((16, 3, 3, 3))
  for i, j, c, o in np.ndindex(kernel.shape):
    timm[o, c, i, j] = kernel[i, j, c, o]
    cvnets[o, 2 - c, i, j] = kernel[i, j, c, o]  # blue first
  for tensor, dialect in ((timm, "timm"), (cvnets, "cvnets")):
    tensors = {row.names(dialect)[0]: tensor}
    found = names.from_dialect(row, tensors, dialect)
    np.testing.assert_array_equal(found, kernel)


def test_unknown_names():
  with pytest.raises(ValueError, match=r"of no net.*found resnet\.conv1"):
    names.detect(["resnet.conv1"])


@pytest.mark.parametrize("dialect", names.DIALECTS[:4])
def test_kind_is_read_off_the_names(dialect, monkeypatch):
  # A second table with the same backbone and more, and a third with less.
  more = (*ROWS, names.Row("head/more/bias", "more.bias", "more.bias"))
  tables = {"classifier": ROWS, "more": more, "less": ROWS[:-2]}
  monkeypatch.setitem(names.TABLES, "mobilevit", tables)
  shapes = shapes_of("mobilevit_xxs")
  tensors = {
    name: np.zeros(shape)
    for row in ROWS
    for name, shape in names.dialect_shapes(
      row, shapes[row.path], dialect
    ).items()
  }
  assert names.kind(tensors) == ("mobilevit", "classifier", dialect)
  del tensors[next(iter(tensors))]
  assert names.kind(tensors) == ("mobilevit", "classifier", dialect)
