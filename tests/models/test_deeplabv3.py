"""DeepLabv3: published sizes, shapes, strides, dropout, alignment, batch 1."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import models
from mobilevit_jax.models.heads import deeplabv3
from tests import tiny

# Published as 1.9, 2.9 and 6.4 M parameters, and 8.5 M for S with 512.
COUNTS = {
  ("mobilevit_xxs", 256): 1_854_853,
  ("mobilevit_xs", 256): 2_944_069,
  ("mobilevit_s", 256): 6_357_941,
  ("mobilevit_xxs", 512): 3_440_261,
  ("mobilevit_xs", 512): 4_648_261,
  ("mobilevit_s", 512): 8_537_269,
}
# Of 21 and 150 classes by width, from 0.5 on, with a pyramid of 512 channels;
# published as 6.2 to 34.0 M.
COUNTS_V2 = (
  *((6_242_318, 6_308_495), (9_510_278, 9_576_455), (13_318_654, 13_384_831)),
  *((17_667_446, 17_733_623), (22_556_654, 22_622_831)),
  *((27_986_278, 28_052_455), (33_956_318, 34_022_495)),
)
AUXILIARY = {
  "mobilevit_xxs": 76_693,
  "mobilevit_xs": 95_125,
  "mobilevit_s": 150_421,
}


def count(name, **fields):
  model = models.abstract_model(name, head="deeplabv3", **fields)
  return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def head(channels=(6, 8), stride=16, **fields):
  """A head alone, with random weights."""

  class Backbone:
    pass

  backbone = Backbone()
  backbone.channels, backbone.output_stride = channels, stride
  fields = {"num_classes": 3, "aspp_width": 8, **fields}
  net = nnx.eval_shape(lambda: deeplabv3.DeepLabV3(backbone, **fields))
  graphdef, state = nnx.split(net)
  rng = np.random.default_rng(0)
  values = jax.tree.map(
    lambda leaf: (
      jax.random.key_data(jax.random.key(0))
      if jnp.issubdtype(leaf.dtype, jnp.unsignedinteger)
      else jnp.asarray(0.5 + rng.random(leaf.shape), leaf.dtype)
    ),
    state,
  )
  return nnx.merge(graphdef, values)


def maps(batch=2, side=4, channels=(6, 8)):
  rng = np.random.default_rng(1)
  shapes = [(batch, side, side, c) for c in channels]
  values = (jnp.asarray(rng.random(shape), jnp.float32) for shape in shapes)
  return dict(zip(("stage4", "stage5"), values, strict=True))


@pytest.mark.parametrize(("name", "width"), COUNTS)
def test_parameters_are_the_published_ones(name, width):
  assert count(name, aspp_width=width) == COUNTS[name, width]
  assert count(name, aspp_width=width, output_stride=8) == COUNTS[name, width]
  more = count(name, aspp_width=width, auxiliary=True) - COUNTS[name, width]
  assert more == AUXILIARY[name]


@pytest.mark.parametrize(
  ("name", "counts"),
  [*zip(models.FAMILIES["mobilevitv2"].variants, COUNTS_V2, strict=True)],
)
def test_parameters_of_v2_are_the_published_ones(name, counts):
  found = [count(name, aspp_width=512, num_classes=k) for k in (21, 150)]
  assert tuple(found) == counts
  if name == "mobilevitv2_100":
    more = count(name, aspp_width=512, auxiliary=True) - counts[0]
    assert more == 445_333


@pytest.mark.parametrize("name", ("mobilevitv3_xxs", "mobilevitv3_050"))
def test_the_head_of_v3_is_that_of_its_channels(name):
  # Nobody published these counts: the head's formula is that of v1's.
  net = models.abstract_model(name)
  channels, width, classes = net.backbone.channels[-1], 256, 21
  dense = width * (channels + 2) * 2 + 3 * width * (9 * channels + 2)
  project = width * (5 * width + 2) + classes * (width + 1)
  parts = nnx.state(net.backbone, nnx.Param)
  backbone = sum(leaf.size for leaf in jax.tree.leaves(parts))
  assert count(name) == backbone + dense + project


def test_every_variant_has_a_count():
  variants = set(models.FAMILIES["mobilevit"].variants)
  assert {name for name, _ in COUNTS} == set(AUXILIARY) == variants


@pytest.mark.parametrize("stride", (16, 8))
def test_shapes_and_rates_follow_the_stride(stride):
  net = models.abstract_model(
    "mobilevit_xxs", head="deeplabv3", output_stride=stride, num_classes=5
  )
  branches = net.head.aspp.branches
  assert [b.conv.dilation for b in branches] == [1, *deeplabv3.RATES[stride]]
  shape = nnx.eval_shape(lambda m, x: m(x), net, jnp.zeros((1, 65, 96, 3)))
  assert shape.shape == (1, -(-65 // stride), 96 // stride, 5)
  full = net.head.OUTPUTS["mask"]
  assert jax.eval_shape(full, shape).shape == (
    1,
    -(-65 // stride) * stride,
    96,
  )


def test_one_pixel_sees_as_far_as_the_rates():
  net = head(rates=(1, 2, 3))
  # The mean reaches everywhere; without it only the dilated taps do.
  net.aspp.pool.conv.kernel[...] *= 0
  zero = jnp.zeros((1, 9, 9, 8))
  lit = net({"stage5": zero.at[0, 4, 4].set(1.0)}) - net({"stage5": zero})
  touched = np.argwhere(np.abs(np.asarray(lit[0, ..., 0])) > 1e-6) - 4
  steps = {
    (r * i, r * j) for r in (1, 2, 3) for i in (-1, 0, 1) for j in (-1, 0, 1)
  }
  assert {tuple(place) for place in touched.tolist()} == steps


@pytest.mark.parametrize("kind", deeplabv3.DROPOUT_KINDS)
def test_dropout_takes_elements_or_channels(kind):
  net = head(aspp_dropout=0.5, aspp_dropout_kind=kind, classifier_dropout=0.0)
  x = jnp.ones((4, 6, 6, 8))
  dropped = net.aspp_dropout(x, deterministic=False, rngs=nnx.Rngs(dropout=0))
  share = np.asarray(dropped == 0).mean(axis=(1, 2))
  assert 0.2 < share.mean() < 0.8
  assert (
    set(np.unique(share)) == {0, 1} if kind == "channel" else share.min() > 0
  )
  whole = net.dropout.__class__(0.5, broadcast_dims=(1, 2))
  assert net.dropout.broadcast_dims == whole.broadcast_dims


def test_training_gives_the_auxiliary_logits_and_evaluation_does_not():
  net = head(auxiliary=True)
  found = net(maps(), True, nnx.Rngs(dropout=0))
  assert {k: v.shape for k, v in found.items()} == {
    "logits": (2, 4, 4, 3),
    "auxiliary": (2, 4, 4, 3),
  }
  assert net(maps()).shape == (2, 4, 4, 3)
  assert net.CLASSIFIERS[-1] == "classifier"


def test_one_image_cannot_be_trained_on():
  net = head()
  assert net(maps(1)).shape == (1, 4, 4, 3)
  with pytest.raises(ValueError, match=r"1 images in 1 .* at least 2 images"):
    net(maps(1), True, nnx.Rngs(dropout=0))
  assert net(maps(2), True, nnx.Rngs(dropout=0)).shape == (2, 4, 4, 3)
  with pytest.raises(ValueError, match="in 2 BatchNorm groups"):
    head(bn_groups=2)(maps(2), True, nnx.Rngs(dropout=0))


@pytest.mark.parametrize(("size", "to"), ((4, 64), (5, 13), (7, 3), (1, 6)))
def test_half_pixel_resize_is_jax_own(size, to):
  x = np.random.default_rng(0).random(size)
  expected = jax.image.resize(x, (to,), "linear", antialias=False)
  weights = deeplabv3.resize_weights(size, to, aligned=False)
  np.testing.assert_allclose(weights @ x, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "to"), ((4, 64), (5, 13), (7, 3), (1, 6)))
def test_aligned_resize_keeps_the_corners_and_lines(size, to):
  weights = deeplabv3.resize_weights(size, to, aligned=True)
  np.testing.assert_allclose(weights.sum(axis=1), 1)
  line = weights @ np.arange(size)
  np.testing.assert_allclose(line, np.linspace(0, size - 1, to), atol=1e-12)


@pytest.mark.parametrize(
  ("fields", "message"),
  (
    ({"stride": 32}, "output_stride=32 must be 8 or 16"),
    ({"aspp_dropout_kind": "pixel"}, "aspp_dropout_kind='pixel'"),
    ({"rates": (1, 2)}, r"rates=\(1, 2\)"),
    ({"num_classes": 0}, "num_classes=0"),
    ({"aspp_dropout": 1.0}, r"aspp_dropout=1\.0"),
  ),
)
def test_refuses(fields, message):
  with pytest.raises(ValueError, match=message):
    head(**fields)


def test_it_stands_on_other_backbones():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.FAMILIES, "tiny", tiny.FAMILY)
    net = models.create_model("tiny", "deeplabv3", num_classes=2, aspp_width=8)
  assert net(jnp.zeros((1, 16, 16, 3))).shape == (1, 4, 4, 2)
