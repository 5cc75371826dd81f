from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax import steps
from mobilevit_jax.models import layers
from mobilevit_jax.models import mobilevit_v2
from tests import separable

# The spec of the published nets: parameters of width 0.5 and so on.
PUBLISHED = {
  "mobilevitv2_050": 1_370_593,
  "mobilevitv2_075": 2_866_009,
  "mobilevitv2_100": 4_901_841,
  "mobilevitv2_125": 7_478_089,
  "mobilevitv2_150": 10_594_753,
  "mobilevitv2_175": 14_251_833,
  "mobilevitv2_200": 18_449_329,
}


def _stage_shapes(name, height, width, **fields):
  graphdef, *weights = steps.split(models.abstract_model(name, **fields))
  outputs = jax.eval_shape(
    lambda x, *weights: nnx.merge(graphdef, *weights).features(x),
    jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32),
    *weights,
  )
  return [output.shape for output in outputs.values()]


def test_every_model_has_its_published_count():
  assert PUBLISHED.keys() == mobilevit_v2.VARIANTS.keys()


@pytest.mark.smoke
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_exact(name):
  params = steps.split(models.abstract_model(name))[1]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED[name]
  assert models.full_name(models.short_name(name)) == name
  assert models.short_name(name) == name.removeprefix("mobilevit")


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
  ("output_stride", "strides"),
  [(32, (2, 4, 8, 16, 32)), (16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))],
)
def test_stages_have_their_strides_and_channels(name, output_stride, strides):
  width = int(name[-3:]) / 100
  assert _stage_shapes(name, 256, 192, output_stride=output_stride) == [
    (2, 256 // stride, 192 // stride, round(width * channels))
    for stride, channels in zip(strides, (64, 128, 256, 384, 512), strict=True)
  ]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (224, 288), (200, 312)])
def test_odd_maps_of_the_blocks_become_even_and_stay_so(size):
  for number, shape in enumerate(_stage_shapes("mobilevitv2_050", *size), 1):
    expected = size
    for stage in range(1, number + 1):
      expected = [-(-side // 2) for side in expected]
      if stage >= 3:
        expected = [side + side % 2 for side in expected]
    assert shape[1:3] == tuple(expected)


@pytest.mark.parametrize(
  ("output_stride", "of_blocks", "of_stage5"),
  [(32, (1, 1, 1), 1), (16, (1, 1, 2), 1), (8, (1, 2, 4), 2)],
)
def test_dilation(output_stride, of_blocks, of_stage5):
  backbone = models.abstract_model(
    "mobilevitv2_050", output_stride=output_stride
  ).backbone
  blocks = backbone.stage3[1], backbone.stage4[1], backbone.stage5[1]
  assert tuple(b.local_rep.conv.dilation for b in blocks) == of_blocks
  assert backbone.stage4[0].depthwise.dilation == 1
  assert backbone.stage5[0].depthwise.dilation == of_stage5


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"dropout": 1.0}, r"dropout=1.0 must be .* below 1"),
    ({"output_stride": 4}, "output_stride=4 must be 8, 16 or 32"),
    ({"depthwise": "x"}, "depthwise='x' must be one of auto, conv, shift"),
    ({"bn_groups": 0}, "bn_groups=0 must be at least 1"),
  ],
)
def test_bad_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    models.abstract_model("mobilevitv2_050", **fields)


def test_no_head_and_no_dropout():
  net = models.abstract_model("mobilevitv2_100")
  assert net.layers[-2:] == ("backbone/stage5", "head/classifier")
  assert net.head.classifier.kernel.shape == (512, 1000)
  assert net.head.dropout.rate == 0
  assert net.backbone.stage3[1].global_rep[0].dropout.rate == 0
  frozen = models.abstract_model("mobilevitv2_100", frozen=True)
  assert frozen.trained_layers == ("head/classifier",)


@pytest.mark.parametrize("size", [(1, 1), (7, 6), (5, 9)])
def test_even_size_is_an_aligned_bilinear_resize(size):
  x = np.random.default_rng(0).normal(size=(2, *size, 3))
  expected = x
  for axis in (1, 2):
    old = expected.shape[axis]
    places = np.linspace(0, old - 1, old + old % 2)
    expected = np.apply_along_axis(
      lambda line, places=places: np.interp(places, np.arange(len(line)), line),
      axis,
      expected,
    )
  found = mobilevit_v2.even_size(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_block_is_the_papers():
  block = nnx.eval_shape(
    lambda: mobilevit_v2.MobileViTv2Block(8, 6, depth=2, dropout=0.0)
  )
  block = random_weights.randomize(block)
  x = np.random.default_rng(1).normal(size=(2, 6, 4, 8))
  found = block(jnp.asarray(x, jnp.float32))
  expected, _ = separable.block(block, x)
  assert np.abs(expected).max() > 0.5
  np.testing.assert_allclose(found, expected, atol=2e-5)


def test_scores_are_float32_and_sum_to_one():
  attention = mobilevit_v2.SeparableAttention(
    4, kind="auto", dtype=jnp.bfloat16
  )
  y, scores = attention.attend(jnp.ones((2, 4, 9, 4), jnp.bfloat16))
  assert (y.dtype, scores.dtype) == (jnp.bfloat16, jnp.float32)
  np.testing.assert_allclose(jnp.sum(scores, -1), 1, rtol=1e-6)


def test_group_norm_is_over_all_of_an_image():
  x = np.random.default_rng(0).normal(2, 3, (2, 4, 5, 6)).astype(np.float32)
  norm = layers.GroupNorm(6)
  norm.scale[...] = jnp.arange(6.0)
  norm.bias[...] = jnp.ones(6)
  flat = x.reshape(2, -1)
  expected = (x - flat.mean(1)[:, None, None, None]) / np.sqrt(
    flat.var(1)[:, None, None, None] + 1e-5
  )
  np.testing.assert_allclose(norm(x), expected * np.arange(6) + 1, atol=1e-5)


def test_initial_values_are_torchs():
  net = models.create_model("mobilevitv2_100")
  params, stats = steps.split(net)[1:]
  for path, leaf in jax.tree_util.tree_leaves_with_path((params, stats)):
    keys = [str(key.key) for key in path[1:]]
    owner = net
    for key in keys[:-1]:
      owner = owner[int(key)] if key.isdecimal() else getattr(owner, key)
    values = np.asarray(leaf)
    if keys[-1] in ("scale", "var"):
      assert (values == 1).all()
    elif isinstance(owner, layers.Linear) and keys[-1] == "bias":
      assert (values == 0).all()
    elif hasattr(owner, "kernel"):
      fan_in = np.prod(owner.kernel.shape[:-1])
      bound = fan_in**-0.5  # torch: Kaiming-uniform with a = sqrt(5)
      if isinstance(owner, layers.Linear):
        bound = np.sqrt(6 / sum(owner.kernel.shape))  # Xavier
      assert np.abs(values).max() <= bound
      if values.size > 30:
        std = bound / np.sqrt(3)
        assert abs(values.std() - std) < 3 * std / np.sqrt(values.size)
    else:
      assert (values == 0).all()


def test_train_and_bfloat16(monkeypatch):
  monkeypatch.setattr(mobilevit_v2, "DEPTHS", (1, 1, 1))  # compiles faster
  images = np.random.default_rng(0).random((2, 33, 47, 3), np.float32)
  fields = {"num_classes": 5, "dropout": 0.1}
  net = models.create_model("mobilevitv2_050", **fields)
  half = models.create_model("mobilevitv2_050", dtype="bfloat16", **fields)
  graphdef, *weights = steps.split(net)

  @jax.jit
  def run(*weights):
    net = nnx.merge(graphdef, *weights)
    trained = net(images, train=True, rngs=nnx.Rngs(dropout=jax.random.key(0)))
    stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
    # The running statistics of before.
    plain, low = (
      nnx.merge(definition, *weights)(images)
      for definition in (graphdef, steps.split(half)[0])
    )
    return plain, trained, stats, low

  plain, trained, stats, low = run(*weights)
  assert plain.dtype == trained.dtype == low.dtype == jnp.float32
  assert np.isfinite(trained).all()
  np.testing.assert_allclose(low, plain, atol=0.05 * np.abs(plain).max())
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), stats, weights[1])
  assert all(jax.tree.leaves(moved))
