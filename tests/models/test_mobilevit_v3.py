import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax import steps
from mobilevit_jax import summary
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import mobilevit_v2
from mobilevit_jax.models import mobilevit_v3

# Parameters; multiply-adds at 256 px in millions, and how many of these are
# attention's products. Those of the last three are elementwise ones, which
# `summary` leaves out.
PUBLISHED = {
  "mobilevitv3_xxs": (1_249_448, 332.2, 78.2),
  "mobilevitv3_xs": (2_490_360, 966.6, 117.3),
  "mobilevitv3_s": (5_763_912, 1832.7, 177.6),
  "mobilevitv3_xxs_l2": (1_145_288, 300.7, 72.9),
  "mobilevitv3_xs_l2": (2_257_320, 899.8, 109.4),
  "mobilevitv3_s_l2": (5_169_864, 1669.1, 165.1),
  "mobilevitv3_050": (1_429_985, 480.3, 0.5),
  "mobilevitv3_075": (2_999_641, 1063.0, 0.8),
  "mobilevitv3_100": (5_139_409, 1873.9, 1.0),
}


def test_every_model_has_its_published_count():
  assert list(PUBLISHED) == [n for n in models.VARIANTS if "v3" in n]


@pytest.mark.smoke
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
  net = models.abstract_model(name, depthwise="conv")
  count, millions, attention = PUBLISHED[name]
  params = steps.split(net)[1]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
  macs = sum(
    (layer.macs for layer in summary.summarize(net, 256, 256)), summary.Macs()
  )
  if models.VARIANTS[name] in mobilevit_v3.VARIANTS_V2.values():
    assert macs.attention == 0
    assert macs.total / 1e6 == pytest.approx(millions - attention, abs=0.11)
  else:
    assert macs.attention / 1e6 == pytest.approx(attention, abs=0.0501)
    assert macs.total / 1e6 == pytest.approx(millions, abs=0.0501)
  assert models.short_name(name) == name.removeprefix("mobilevit")
  assert models.full_name(models.short_name(name)) == name


@pytest.mark.parametrize(
  ("name", "width"), (("xxs", 512), ("xs", 640), ("s", 960), ("100", None))
)
def test_the_heads_convolution_is_capped(name, width):
  net = models.abstract_model(f"mobilevitv3_{name}")
  assert net.backbone.head_channels == width


def test_v1s_odd_maps_keep_their_size_and_v2s_do_not():
  images = jnp.zeros((1, 112, 80, 3))
  for name, sizes in (
    ("xxs", [(14, 10), (7, 5), (4, 3)]),
    ("050", [(14, 10), (8, 6), (4, 4)]),
  ):
    graphdef, state = nnx.split(models.abstract_model(f"mobilevitv3_{name}"))
    found = jax.eval_shape(
      lambda s, x, g=graphdef: nnx.merge(g, s).features(x), state, images
    )
    assert [found[f"stage{i}"].shape[1:3] for i in (3, 4, 5)] == sizes


# A numpy block, from sections 1 and 2 of mobilevit_v3.md alone.


def _value(parameter):
  return np.asarray(parameter[...], np.float64)


def _norm(norm, x):
  y = (x - _value(norm.mean)) / np.sqrt(_value(norm.var) + 1e-5)
  return y * _value(norm.scale) + _value(norm.bias)


def _silu(x):
  return x / (1 + np.exp(-x))


def _pointwise(module, x):
  y = x @ _value(module.kernel)[0, 0]
  return y + _value(module.bias) if module.use_bias else y


def _local(block, x):
  _, h, w, _ = x.shape
  taps = _value(block.local_rep.conv.kernel)[:, :, 0]
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  y = np.zeros_like(x)
  for i in range(3):
    for j in range(3):
      y += padded[:, i : i + h, j : j + w] * taps[i, j]
  return _pointwise(block.expand, _silu(_norm(block.local_rep.norm, y)))


def _standardise(x, axes):
  y = x - x.mean(axes, keepdims=True)
  return y / np.sqrt(np.square(y).mean(axes, keepdims=True) + 1e-5)


def _layer_norm(norm, x):
  return _standardise(x, -1) * _value(norm.scale) + _value(norm.bias)


def _group_norm(norm, x):
  y = _standardise(x, (1, 2, 3))
  return y * _value(norm.scale) + _value(norm.bias)


def _dense(module, x):
  return x @ _value(module.kernel) + _value(module.bias)


def _transformer(layer, x):
  """`[n, d]`: four heads, softmax(q k / sqrt(e)) v."""
  n, d = x.shape
  qkv = _dense(layer.attention.qkv, _layer_norm(layer.attention_norm, x))
  query, key, value = (
    part.reshape(n, 4, d // 4) for part in np.split(qkv, 3, axis=-1)
  )
  mixed = np.zeros((n, 4, d // 4))
  for head in range(4):
    weights = np.exp(query[:, head] @ key[:, head].T / np.sqrt(d // 4))
    weights /= weights.sum(-1, keepdims=True)
    mixed[:, head] = weights @ value[:, head]
  x = x + _dense(layer.attention.out, mixed.reshape(n, d))
  y = _silu(_dense(layer.ffn_in, _layer_norm(layer.ffn_norm, x)))
  return x + _dense(layer.ffn_out, y)


def _block_of_v1(block, x):
  local = _local(block, x)
  z = np.zeros_like(local)
  for image in range(len(x)):
    for i in range(2):
      for j in range(2):  # pixels at the same place of their patch
        part = local[image, i::2, j::2]
        tokens = part.reshape(-1, part.shape[-1])
        for layer in block.global_rep:
          tokens = _transformer(layer, tokens)
        z[image, i::2, j::2] = tokens.reshape(part.shape)
  z = _layer_norm(block.norm, z)
  g = _silu(_norm(block.project.norm, _pointwise(block.project.conv, z)))
  y = np.concatenate([local, g], -1)
  return _silu(_norm(block.fusion.norm, _pointwise(block.fusion.conv, y))) + x


def _block_of_v2(block, x):
  local = _local(block, x)
  z, d = local, local.shape[-1]
  for layer in block.global_rep:
    qkv = _pointwise(layer.attention.qkv, _group_norm(layer.attention_norm, z))
    y = np.zeros_like(z)
    for i in range(2):
      for j in range(2):
        part = qkv[:, i::2, j::2]
        scores = np.exp(part[..., :1])
        scores /= scores.sum((1, 2), keepdims=True)
        context = (scores * part[..., 1 : d + 1]).sum((1, 2), keepdims=True)
        y[:, i::2, j::2] = np.maximum(part[..., d + 1 :], 0) * context
    z = z + _pointwise(layer.attention.out, y)
    y = _silu(_pointwise(layer.ffn_in, _group_norm(layer.ffn_norm, z)))
    z = z + _pointwise(layer.ffn_out, y)
  y = np.concatenate([_group_norm(block.norm, z), local], -1)
  return _norm(block.project.norm, _pointwise(block.project.conv, y)) + x


@pytest.mark.parametrize(
  ("kind", "reference"),
  (
    (mobilevit_v3.BlockOfV1, _block_of_v1),
    (mobilevit_v3.BlockOfV2, _block_of_v2),
  ),
)
def test_blocks_are_the_papers(kind, reference):
  block = nnx.eval_shape(lambda: kind(12, 8, depth=2, dropout=0.0))
  block = random_weights.randomize(block)
  x = np.random.default_rng(1).normal(size=(2, 6, 4, 12))
  graphdef, state = nnx.split(block)
  run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
  expected = reference(block, x)
  assert np.abs(expected - x).max() > 0.5
  found = run(state, jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(found, expected, atol=5e-5)


def test_variants_are_their_forerunners_but_for_what_the_paper_changes():
  for name, variant in mobilevit_v3.VARIANTS.items():
    before = mobilevit.VARIANTS[name.replace("v3", "")]
    same = dataclasses.replace(variant, channels=before.channels)
    assert same == before
    assert variant.channels != before.channels
  for name, variant in mobilevit_v3.VARIANTS_V2.items():
    assert variant == mobilevit_v2.VARIANTS[name.replace("v3", "v2")]
