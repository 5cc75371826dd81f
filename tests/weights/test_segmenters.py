"""Weights of segmenters: published names and shapes, round trips, resets."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from mobilevit_jax import models
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights import trees
from mobilevit_jax.weights.source import read_weights

SPEC = pathlib.Path(__file__).resolve().parents[3] / "shared/spec"
NAME = "mobilevit_xxs"
PUBLISHED = ("hf", "cvnets", "cvnets_v02")


def net(head="deeplabv3", **fields):
  return models.abstract_model(NAME, head, **fields)


def weights_of(model, seed=0):
  rng = np.random.default_rng(seed)
  return {
    path: rng.random(leaf.shape, np.float32)
    for path, leaf in trees.flat_model(model).items()
  }


def tensors_of(model, dialect, seed=0):
  """Its weights by path, and as a file of that dialect has them."""
  weights = weights_of(model, seed)
  return weights, names.to_dialect(weights, names.table(model), dialect)


@pytest.mark.parametrize("variant", ("xxs", "xs", "s"))
@pytest.mark.parametrize(
  ("file", "dialect"), (("hf", "hf"), ("cvnets_v01", "cvnets"))
)
def test_names_and_shapes_are_the_published_ones(variant, file, dialect):
  path = SPEC / f"keys_seg_{file}_{variant}.json"
  if not path.exists():
    pytest.skip("no key tables here")
  published = {
    key: tuple(shape) for key, shape in json.loads(path.read_text()).items()
  }
  model = models.abstract_model(f"mobilevit_{variant}", "deeplabv3")
  _, tensors = tensors_of(model, dialect)
  assert {key: value.shape for key, value in tensors.items()} == published
  assert names.kind(published) == ("mobilevit", "deeplabv3", dialect)


def test_names_of_v2_are_the_published_ones():
  model = models.abstract_model("mobilevitv2_100", "deeplabv3", aspp_width=512)
  path = SPEC / "keys_seg_hf_v2_1.0.json"
  if not path.exists():
    pytest.skip("no key tables here")
  published = {
    key: tuple(shape) for key, shape in json.loads(path.read_text()).items()
  }
  _, tensors = tensors_of(model, "hf")
  assert {key: value.shape for key, value in tensors.items()} == published
  assert names.kind(published) == ("mobilevitv2", "deeplabv3", "hf")


def test_segmenters_of_v2_go_out_and_in(tmp_path):
  model = models.abstract_model(
    "mobilevitv2_050", "deeplabv3", aspp_width=512, auxiliary=True
  )
  weights, tensors = tensors_of(model, "cvnets_v02")
  assert "seg_head.classifier.block.conv.weight" in tensors
  assert "encoder.layer_5.1.local_rep.0.block.conv.weight" in tensors
  # v2 reads RGB: nothing is turned round.
  np.testing.assert_array_equal(
    tensors["encoder.conv_1.block.conv.weight"],
    weights["backbone/stem/conv/kernel"].transpose(3, 2, 0, 1),
  )
  assert names.kind(tensors) == ("mobilevitv2", "deeplabv3", "cvnets_v02")
  back = io.decode(tensors, model, name="w")
  for path, value in weights.items():
    np.testing.assert_array_equal(back[path], value)
  with pytest.raises(ValueError, match="no name among those of cvnets"):
    tensors_of(model, "cvnets")
  plain = models.abstract_model("mobilevitv2_050", "deeplabv3")
  io.write(weights_of(plain), plain, tmp_path / "hf", to="hf")
  config = json.loads((tmp_path / "hf" / "config.json").read_text())
  assert config["architectures"] == ["MobileViTV2ForSemanticSegmentation"]


def test_names_since_v02():
  _, old = tensors_of(net(auxiliary=True), "cvnets")
  _, new = tensors_of(net(auxiliary=True), "cvnets_v02")
  classifier = "seg_head.classifier.{}block.conv.weight"
  assert classifier.format("classifier.") in old
  assert classifier.format("") in new
  for name in ("0.block.norm.running_mean", "2.block.conv.bias"):
    assert f"seg_head.aux_head.{name}" in new
  assert "seg_head.aux_head.aux_projection.block.conv.weight" in old
  assert {key for key in old if key.startswith("encoder.")} <= set(new)
  # Apple read BGR by OpenCV at first, and RGB since v0.2.
  first = "encoder.conv_1.block.conv.weight"
  np.testing.assert_array_equal(old[first], new[first][:, ::-1])


@pytest.mark.parametrize("auxiliary", (False, True))
@pytest.mark.parametrize("width", (256, 512))
@pytest.mark.parametrize("dialect", ("jax", *PUBLISHED))
def test_round_trip(dialect, width, auxiliary, tmp_path):
  stride = 8 if auxiliary else 16
  model = net(
    aspp_width=width, auxiliary=auxiliary, num_classes=4, output_stride=stride
  )
  if dialect == "hf" and auxiliary:
    with pytest.raises(ValueError, match="has no name among those of hf"):
      tensors_of(model, dialect)
    return
  weights = weights_of(model)
  io.write(weights, model, tmp_path / "w.safetensors", to=dialect)
  found = read_weights(tmp_path / "w.safetensors")
  assert names.detect(found.tensors) == dialect
  fields = io.find_model(found)
  assert (fields["aspp_width"], fields["auxiliary"]) == (width, auxiliary)
  assert (fields["name"], fields["num_classes"]) == (NAME, 4)
  # Our own files say their stride; of others the width tells whose they are.
  assert fields["output_stride"] == stride
  other = io.find_model(dataclasses.replace(found, output_stride=None))
  assert other.get("output_stride", 16) == (16 if width == 256 else 8)
  back = io.decode(found.tensors, model, name="w")
  assert back.keys() == weights.keys()
  for path, value in weights.items():
    np.testing.assert_array_equal(back[path], value)


def test_an_auxiliary_head_may_be_left_out_and_not_made_up():
  _, tensors = tensors_of(net(auxiliary=True), "cvnets_v02")
  back = io.decode(tensors, net(), name="w")
  assert not any("auxiliary" in path for path in back)
  _, tensors = tensors_of(net(), "cvnets_v02")
  with pytest.raises(ValueError, match=r"missing: seg_head\.aux_head"):
    io.decode(tensors, net(auxiliary=True), name="w")


@pytest.mark.parametrize("dialect", ("jax", *PUBLISHED))
def test_reset_classifier_keeps_all_but_the_classes(dialect):
  weights, tensors = tensors_of(net(num_classes=21), dialect)
  own = net(num_classes=2)
  with pytest.raises(ValueError, match="in 2 tensors"):
    io.decode(tensors, own, name="w")
  back = io.decode(tensors, own, name="w", reset="classifier")
  missing = trees.flat_model(own).keys() - back.keys()
  assert missing == {"head/classifier/kernel", "head/classifier/bias"}
  kernel = "head/aspp/project/conv/kernel"
  np.testing.assert_array_equal(back[kernel], weights[kernel])


@pytest.mark.parametrize(
  ("source", "target", "dialects"),
  (
    ("classifier", "deeplabv3", ("jax", "timm", "hf", "cvnets")),
    ("deeplabv3", "classifier", ("jax", *PUBLISHED)),
  ),
)
def test_a_backbone_goes_from_one_head_to_the_other(source, target, dialects):
  model = net(target)
  for dialect in dialects:
    weights, tensors = tensors_of(net(source), dialect)
    with pytest.raises(ValueError):
      io.decode(tensors, model, name="w")
    back = io.decode(tensors, model, name="w", reset="head")
    paths = {p for p in trees.flat_model(model) if p.startswith("backbone/")}
    assert back.keys() == paths
    for path in paths:
      np.testing.assert_array_equal(back[path], weights[path])


def test_transformers_folder(tmp_path):
  model = net(aspp_width=512, output_stride=8, num_classes=3)
  labels = ["none", "cat", "dog"]
  folder = tmp_path / "hf"
  io.write(weights_of(model), model, folder, to="hf", labels=labels)
  config = json.loads((folder / "config.json").read_text())
  assert config["architectures"] == ["MobileViTForSemanticSegmentation"]
  assert config["aspp_out_channels"] == 512
  assert (config["output_stride"], config["atrous_rates"]) == (8, [12, 24, 36])
  found = read_weights(folder)
  assert found.labels == tuple(labels) and found.output_stride == 8
