from flax import nnx
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import mobilevit_jax
from mobilevit_jax import models
from mobilevit_jax import steps
from mobilevit_jax.models import mobilevit

# The spec of the published nets: parameters, and channels of the stages.
PUBLISHED = {
  "mobilevit_xxs": (1_272_024, (16, 24, 48, 64, 80)),
  "mobilevit_xs": (2_317_848, (32, 48, 64, 80, 96)),
  "mobilevit_s": (5_578_632, (32, 64, 96, 128, 160)),
}


def _stage_shapes(name, height, width, **fields):
  graphdef, *weights = steps.split(models.abstract_model(name, **fields))
  images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
  outputs = jax.eval_shape(
    lambda x, *weights: nnx.merge(graphdef, *weights).features(x),
    images,
    *weights,
  )
  return {stage: output.shape for stage, output in outputs.items()}


def test_every_model_has_its_published_count():
  assert PUBLISHED.keys() == mobilevit.VARIANTS.keys()


@pytest.mark.smoke
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_exact(name):
  params = steps.split(models.abstract_model(name))[1]
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == PUBLISHED[name][0]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
  ("output_stride", "strides"),
  [(32, (2, 4, 8, 16, 32)), (16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))],
)
def test_stages_have_their_strides_and_channels(name, output_stride, strides):
  shapes = _stage_shapes(name, 256, 192, output_stride=output_stride)
  assert list(shapes.values()) == [
    (2, 256 // stride, 192 // stride, channels)
    for stride, channels in zip(strides, PUBLISHED[name][1], strict=True)
  ]


def test_only_stage5_is_dilated_and_only_at_stride_8():
  for output_stride in (32, 16, 8):
    model = models.abstract_model("mobilevit_xxs", output_stride=output_stride)
    dilations = [
      block.depthwise.dilation
      for _, block in nnx.iter_graph(model)
      if hasattr(block, "depthwise")
    ]
    assert sorted(dilations) == [1] * 6 + [2 if output_stride == 8 else 1]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (160, 288), (200, 312)])
def test_any_size_from_32_gives_rounded_up_maps(size):
  shapes = _stage_shapes("mobilevit_xxs", *size)
  for number, shape in enumerate(shapes.values(), start=1):
    assert shape[1:3] == tuple(-(-side // 2**number) for side in size)


def test_smaller_or_grey_images_are_refused():
  model = mobilevit_jax.create_model("mobilevit_xxs", num_classes=2)
  with pytest.raises(ValueError, match=r"31 x 64 pixels.*at least 32"):
    model(jnp.zeros((1, 31, 64, 3)))
  with pytest.raises(ValueError, match=r"\[b, h, w, 3\]"):
    model(jnp.zeros((1, 64, 64, 1)))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"num_classes": 0}, "num_classes=0 must be at least 1"),
    ({"dropout": 1.0}, r"dropout=1.0 must be .* below 1"),
    ({"output_stride": 4}, "output_stride=4 must be 8, 16 or 32"),
    ({"depthwise": "x"}, "depthwise='x' must be one of auto, conv, shift"),
    ({"bn_groups": 0}, "bn_groups=0 must be at least 1"),
    ({"dtype": "int8"}, "dtype='int8' must be one of float32"),
  ],
)
def test_bad_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    mobilevit_jax.create_model("mobilevit_s", **fields)


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match=r"'mobilevit_m' must be one of .*_xxs"):
    mobilevit_jax.create_model("mobilevit_m")
  with pytest.raises(TypeError, match="classes"):
    mobilevit_jax.create_model("mobilevit_s", classes=10)


def test_unfold_is_the_strided_view_and_fold_its_inverse():
  b, h, w, d = 2, 4, 6, 3
  x = np.arange(b * h * w * d, dtype=np.float32).reshape(b, h, w, d)
  unfolded = np.asarray(mobilevit.unfold(jnp.asarray(x)))
  # [b, nh, row, nw, column, d] -> [b, row, column, nh, nw, d]
  six = x.reshape(b, h // 2, 2, w // 2, 2, d).transpose(0, 2, 4, 1, 3, 5)
  np.testing.assert_array_equal(unfolded, six.reshape(b, 4, -1, d))
  for pixel in range(4):
    view = x[:, pixel // 2 :: 2, pixel % 2 :: 2]
    np.testing.assert_array_equal(unfolded[:, pixel], view.reshape(b, -1, d))
  folded = mobilevit.fold(jnp.asarray(unfolded), h, w)
  np.testing.assert_array_equal(folded, x)


def _ranks(jaxpr):
  for equation in jaxpr.eqns:
    for variable in (*equation.invars, *equation.outvars):
      yield len(variable.aval.shape)
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _ranks(inner)


@pytest.mark.parametrize("size", [256, 224])
def test_no_tensor_has_more_than_four_axes(size):
  model = models.abstract_model("mobilevit_xxs", depthwise="conv")
  graphdef, *weights = steps.split(model)
  jaxpr = jax.make_jaxpr(lambda x, *w: nnx.merge(graphdef, *w)(x))(
    jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), *weights
  )
  ranks = set(_ranks(jaxpr.jaxpr))
  assert max(ranks) == 4
  assert len(jaxpr.jaxpr.eqns) > 100  # the walk has seen the model


def test_attention_stays_among_pixels_at_the_same_place_of_their_patch():
  block = mobilevit.MobileViTBlock(4, 4, depth=1, dropout=0.0)
  graphdef, state = nnx.split(block)
  rng = np.random.default_rng(0)
  state = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), state
  )
  block = nnx.merge(graphdef, state)
  x = jnp.asarray(rng.normal(size=(1, 6, 6, 4)), jnp.float32)
  row, column = 3, 2

  def pixel(x):
    return jnp.sum(block._attend(x, False, None)[0, row, column])

  reached = np.asarray(jnp.any(jax.grad(pixel)(x)[0] != 0, axis=-1))
  expected = np.zeros((6, 6), bool)
  expected[row % 2 :: 2, column % 2 :: 2] = True
  np.testing.assert_array_equal(reached, expected)


@pytest.mark.smoke
def test_forward_train_and_bfloat16():
  images = np.random.default_rng(0).random((2, 33, 47, 3), np.float32)
  model = mobilevit_jax.create_model("mobilevit_xxs", num_classes=5)
  half = mobilevit_jax.create_model(
    "mobilevit_xxs", num_classes=5, dtype="bfloat16"
  )
  graphdef, *weights = steps.split(model)

  @jax.jit
  def logits(*weights):
    model = nnx.merge(graphdef, *weights)
    first = model(images)
    rngs = nnx.Rngs(dropout=jax.random.key(0))
    trained = model(images, train=True, rngs=rngs)
    stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    return first, trained, stats, nnx.merge(half_graph, *weights)(images)

  half_graph = steps.split(half)[0]
  first, trained, stats, low = logits(*weights)
  assert first.shape == (2, 5)
  assert first.dtype == trained.dtype == low.dtype == jnp.float32
  assert np.isfinite(first).all()
  assert np.isfinite(trained).all()
  np.testing.assert_allclose(low, first, atol=0.05 * np.abs(first).max())
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), stats, weights[1])
  assert all(jax.tree.leaves(moved))


def test_seed_alone_decides_the_weights():
  first, again, other = (
    steps.split(mobilevit_jax.create_model("mobilevit_xxs", seed=seed))[1]
    for seed in (0, 0, 1)
  )
  jax.tree.map(np.testing.assert_array_equal, first, again)
  kernels = [
    (a, b)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    if a.ndim > 1
  ]
  assert all((a != b).any() for a, b in kernels)
  # A layer's values are its own: the classifier's size changes no other.
  small = steps.split(
    mobilevit_jax.create_model("mobilevit_xxs", num_classes=10)
  )[1]
  del small["head"]["classifier"], first["head"]["classifier"]
  jax.tree.map(np.testing.assert_array_equal, small, first)


def test_initial_values_follow_the_recipe():
  params, stats = steps.split(mobilevit_jax.create_model("mobilevit_s"))[1:]
  for path, leaf in jax.tree_util.tree_leaves_with_path((params, stats)):
    name = path[-1].key
    if name in ("scale", "var"):
      assert (leaf == 1).all()
    elif name != "kernel":
      assert (leaf == 0).all()
    else:
      # torch's fan_out is k * k * out, for a depthwise kernel too.
      fan_out = np.prod(leaf.shape[:2]) * leaf.shape[-1]
      std = np.sqrt(2 / fan_out) if leaf.ndim == 4 else 0.02
      error = 5 * std / np.sqrt(2 * leaf.size)  # five sigma
      assert abs(float(leaf.std()) - std) < error
      assert abs(float(leaf.mean())) < 5 * std / np.sqrt(leaf.size)


def test_negative_seed_is_refused():
  with pytest.raises(ValueError, match="seed=-1"):
    mobilevit_jax.create_model("mobilevit_xxs", seed=-1)
