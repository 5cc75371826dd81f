"""SSDLite: exact counts and names, anchors by hand, any image size."""

import json
import pathlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import create_model
from mobilevit_jax import models
from mobilevit_jax.models.heads import ssdlite
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights import trees
from mobilevit_jax.weights.source import read_weights

SPEC = pathlib.Path(__file__).resolve().parents[3] / "shared/spec"
# Parameters with 80, 20 and 3 classes; the first as published, in millions:
# 1.8, 2.7 and 5.7.
PARAMETERS = {
  "mobilevit_xxs": (1_755_050, 1_276_850, 1_141_360),
  "mobilevit_xs": (2_742_042, 2_263_842, 2_128_352),
  "mobilevit_s": (5_738_826, 5_260_626, 5_125_136),
}


def abstract(name="mobilevit_xxs", **fields):
  return models.abstract_model(name, "ssdlite", **fields)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
  counts = tuple(
    sum(leaf.size for leaf in trees.flatten(trees.split(net)[0]).values())
    for net in (abstract(name, num_classes=k) for k in (80, 20, 3))
  )
  assert counts == PARAMETERS[name]


def test_parameters_of_v2():
  """By width from 0.5 to 2; published as 2.0 to 19.1 millions."""
  counts = [
    sum(leaf.size for leaf in trees.flatten(trees.split(net)[0]).values())
    for width in range(50, 225, 25)
    for net in [abstract(f"mobilevitv2_{width:03}", num_classes=80)]
  ]
  assert counts == [
    *(2_035_395, 3_584_955, 5_608_883, 8_173_227),
    *(11_277_987, 14_923_163, 19_108_755),
  ]


@pytest.mark.parametrize("name", models.VARIANTS)
def test_every_tensor_has_a_name_in_cvnets(name):
  net = abstract(name)
  rows = names.table(net)
  assert {row.path for row in rows} == trees.flat_model(net).keys()
  every = [row.names("cvnets")[0] for row in rows]
  assert all(every) and len({*every}) == len(every)


@pytest.mark.parametrize("name", PARAMETERS)
def test_names_and_shapes_are_those_of_cvnets(name):
  file = SPEC / f"keys_det_cvnets_{name.removeprefix('mobilevit_')}.json"
  if not file.exists():
    pytest.skip("no key tables here")
  expected = {
    k: tuple(shape) for k, shape in json.loads(file.read_text()).items()
  }
  net = abstract(name)
  flat = trees.flat_model(net)
  zeros = {
    path: np.zeros(leaf.shape, np.float32) for path, leaf in flat.items()
  }
  tensors = names.to_dialect(zeros, names.table(net), "cvnets")
  assert {key: value.shape for key, value in tensors.items()} == expected
  assert len(expected) == 394


@pytest.mark.parametrize("name", ("mobilevit_xxs", "mobilevitv2_050"))
def test_weights_go_round_and_say_what_they_are(name, tmp_path):
  """The second has no projection of its last stage: it is as wide already."""
  net = create_model(name, "ssdlite", num_classes=3, seed=1)
  io.save_weights(net, tmp_path / "cvnets.safetensors", to="cvnets")
  found = read_weights(tmp_path / "cvnets.safetensors")
  fields = {"name": name, "head": "ssdlite", "num_classes": 3}
  assert io.find_model(found) == fields | {"output_stride": 32}
  loaded = trees.flat_model(io.build_model(found))
  for path, value in trees.flat_model(net).items():
    np.testing.assert_array_equal(loaded[path], value)
  del found.tensors["ssd_heads.4.loc_cls_layer.pw_conv.block.conv.bias"]
  with pytest.raises(ValueError, match=r"missing: ssd_heads\.4"):
    io.decode(found.tensors, net, name="w")
  for dialect in ("timm", "hf"):
    with pytest.raises(ValueError, match="has no name among those of"):
      io.save_weights(net, tmp_path / "other.safetensors", to=dialect)


def test_resets(tmp_path):
  """A classifier's backbone; a detector's all but its predictions."""
  net = create_model("mobilevit_xxs", "ssdlite", num_classes=3, seed=1)
  classifier = create_model("mobilevit_xxs", seed=2)
  io.save_weights(classifier, tmp_path / "c.safetensors", to="cvnets")
  other = create_model("mobilevit_xxs", "ssdlite", num_classes=5, seed=3)
  io.save_weights(other, tmp_path / "d.safetensors", to="cvnets")
  own, its = trees.flat_model(net), trees.flat_model(other)

  def same(loaded, flat):
    values = trees.flat_model(loaded)
    return {
      path
      for path, value in values.items()
      if np.shape(value) == np.shape(flat[path])
      and np.array_equal(value, flat[path])
      and "norm" not in path
      and "bias" not in path
    }

  loaded = io.load_weights(net, tmp_path / "c.safetensors", reset="head")
  heads = {p for p in own if p.startswith("head/") and p.endswith("kernel")}
  assert same(loaded, own) == heads
  stem = "backbone/stem/conv/kernel"
  assert stem in same(loaded, its | trees.flat_model(classifier))
  loaded = io.load_weights(net, tmp_path / "d.safetensors", reset="classifier")
  assert same(loaded, own) == {f"head/predict/{i}/kernel" for i in range(6)}
  with pytest.raises(ValueError, match=r"shape: ssd_heads\.0"):
    io.load_weights(net, tmp_path / "d.safetensors")


def test_first_weights_are_xaviers():
  net = create_model("mobilevit_xxs", "ssdlite", num_classes=80)
  for path, value in trees.flat_model(net).items():
    if path.startswith("head/"):
      value = np.asarray(value)
      if path.endswith("kernel"):
        kh, kw, c_in, c_out = value.shape
        bound = np.sqrt(6 / (kh * kw * (c_in + c_out)))
        assert 0.9 * bound < np.abs(value).max() <= bound, path
      else:
        one = path.endswith(("scale", "var"))
        np.testing.assert_array_equal(value, np.full_like(value, one))
  again = create_model("mobilevit_xxs", num_classes=80)
  stem = "backbone/stem/conv/kernel"
  np.testing.assert_array_equal(
    trees.flat_model(net)[stem], trees.flat_model(again)[stem]
  )


def test_anchors_by_hand():
  anchors = ssdlite.anchors(ssdlite.map_sizes(320, 320))
  assert anchors.shape == (3232, 4)
  np.testing.assert_allclose(anchors[:6, :2], 0.025)
  sides = [
    *((0.1, 0.1), (0.160728, 0.160728), (0.141421, 0.070711)),
    *((0.070711, 0.141421), (0.173205, 0.057735), (0.057735, 0.173205)),
  ]
  np.testing.assert_allclose(anchors[:6, 2:], sides, atol=1e-6)
  np.testing.assert_allclose(anchors[6, :2], (0.075, 0.025))  # row by row
  last = [(0.891667,) * 2, (0.9676,) * 2, (1, 0.630504), (0.630504, 1)]
  np.testing.assert_allclose(anchors[-4:, 2:], last, atol=1e-6)
  assert anchors.max() == 1  # cut, in this form


class Backbone(nnx.Module):
  """Two maps of the strides that the head wants, and nothing else."""

  channels = (6, 8)

  def features(self, images):
    _, h, w, _ = images.shape
    (h4, w4), (h5, w5) = ssdlite.map_sizes(h, w)[:2]
    rng = np.random.default_rng(0)
    return {
      "stage4": jnp.asarray(rng.random((2, h4, w4, 6)), jnp.float32),
      "stage5": jnp.asarray(rng.random((2, h5, w5, 8)), jnp.float32),
    }


def shapes_of(module, *args):
  """What a module gives, without computing it."""
  graphdef, state = nnx.split(module)
  return jax.eval_shape(lambda s: nnx.merge(graphdef, s)(*args), state)


@pytest.mark.parametrize("size", ((320, 320), (97, 33), (32, 32), (300, 513)))
def test_any_size(size):
  """The maps are as large as the anchors are made for."""
  backbone = Backbone()
  head = ssdlite.SSDLite(backbone, num_classes=2)
  out = shapes_of(head, backbone.features(np.zeros((2, *size, 3))))
  sizes = ssdlite.map_sizes(*size)
  n = sum(6 * h * w for h, w in sizes[:-1]) + 4
  assert out["offsets"].shape == (2, n, 4) and out["logits"].shape == (2, n, 3)
  assert out["anchors"].shape == (n, 4) == ssdlite.anchors(sizes).shape


def test_an_anchors_numbers_lie_together_in_the_channels():
  """Anchor by anchor, its offsets and then its classes (cvnets' order)."""
  backbone = Backbone()
  head = ssdlite.SSDLite(backbone, num_classes=2)
  width = 4 + 3
  for predict in head.predict:
    count = predict.bias.shape[0]
    predict.bias = nnx.Param(jnp.arange(count, dtype=jnp.float32))
  out = head(backbone.features(np.zeros((2, 64, 64, 3))))
  both = np.concatenate([out["offsets"], out["logits"]], axis=-1)
  cell = np.arange(6 * width).reshape(6, width)
  np.testing.assert_array_equal(both[0, :12], np.concatenate([cell, cell]))
  np.testing.assert_array_equal(both[1, -4:], cell[:4])


def test_the_outputs_of_real_nets():
  for dtype in ("float32", "bfloat16"):
    net = abstract(num_classes=80, dtype=dtype)
    out = shapes_of(net, jnp.zeros((1, 320, 320, 3)))
    assert out["offsets"].shape == (1, 3232, 4)
    assert out["logits"].shape == (1, 3232, 81)
    assert {leaf.dtype for leaf in out.values()} == {jnp.dtype("float32")}
