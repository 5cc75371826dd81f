import functools
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import models
from mobilevit_jax.models import depthwise
from mobilevit_jax.models import layers
from mobilevit_jax.models import normalize

RNG = np.random.default_rng(0)


def _array(*shape) -> Any:
  return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", depthwise.DEPTHWISE_KINDS)
@pytest.mark.parametrize(
  ("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)]
)
@pytest.mark.parametrize("height_width", [(8, 8), (7, 9), (1, 2)])
def test_depthwise_equals_xla(kind, stride, dilation, height_width):
  x, kernel = _array(2, *height_width, 5), _array(3, 3, 1, 5)

  def native(x, kernel):
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      ((dilation, dilation), (dilation, dilation)),
      rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=5,
    )

  ours = functools.partial(
    depthwise.depthwise_conv, stride=stride, dilation=dilation, kind=kind
  )
  expected, pull_expected = jax.vjp(native, x, kernel)
  actual, pull_actual = jax.vjp(jax.jit(ours), x, kernel)
  np.testing.assert_allclose(actual, expected, atol=2e-5)
  cotangent = _array(*expected.shape)
  for a, e in zip(
    pull_actual(cotangent), pull_expected(cotangent), strict=True
  ):
    np.testing.assert_allclose(a, e, atol=5e-5)


@pytest.mark.parametrize("kind", depthwise.DEPTHWISE_KINDS)
def test_pointwise_equals_xla(kind):
  x, kernel = _array(2, 3, 5, 4), _array(1, 1, 4, 6)

  def native(x, kernel):
    return jnp.einsum("bhwc,co->bhwo", x, kernel[0, 0])

  ours = functools.partial(depthwise.pointwise_conv, kind=kind)
  expected, pull_expected = jax.vjp(native, x, kernel)
  actual, pull_actual = jax.vjp(jax.jit(ours), x, kernel)
  np.testing.assert_allclose(actual, expected, atol=2e-5)
  cotangent = _array(*expected.shape)
  for a, e in zip(
    pull_actual(cotangent), pull_expected(cotangent), strict=True
  ):
    np.testing.assert_allclose(a, e, atol=5e-5)


@pytest.mark.parametrize("dilation", (3, 6, 9))
@pytest.mark.parametrize("size", ((7, 5), (1, 9)))
def test_dilated_equals_xla(size, dilation):
  # Taps that see a part, an edge and nothing of the map.
  x, kernel = _array(2, *size, 4), _array(3, 3, 4, 6)

  def results(kind):
    ours = functools.partial(
      depthwise.dilated_conv, dilation=dilation, kind=kind
    )
    value, pull = jax.vjp(jax.jit(ours), x, kernel)
    return value, *pull(jnp.cos(jnp.arange(value.size)).reshape(value.shape))

  for a, e in zip(results("shift"), results("conv"), strict=True):
    np.testing.assert_allclose(a, e, atol=5e-5)


@pytest.mark.parametrize(
  ("conv", "kernel"),
  [
    (depthwise.depthwise_conv, (3, 3, 1, 4)),
    (depthwise.pointwise_conv, (1, 1, 4, 6)),
    (functools.partial(depthwise.dilated_conv, dilation=3), (3, 3, 4, 6)),
  ],
)
def test_kind_is_chosen_when_it_is_lowered(conv, kernel):
  shapes = [(1, 8, 8, 4), kernel]

  def native(kind, platform):
    def gradients(x, kernel):
      return jax.grad(
        lambda *args: jnp.sum(conv(*args, kind=kind)), argnums=(0, 1)
      )(x, kernel)

    traced = jax.jit(gradients).trace(
      *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    )
    return (
      "convolution" in traced.lower(lowering_platforms=(platform,)).as_text()
    )

  assert not native("auto", "cpu")
  assert native("auto", "cuda")
  assert native("auto", "tpu")
  assert native("conv", "cpu")
  assert not native("shift", "cuda")


def test_conv_kind_makes_every_small_convolution_native():
  # What exporting for several platforms in one file needs: no choice is left.
  def choices(kind):
    model = models.abstract_model("mobilevit_xxs", depthwise=kind)
    graphdef, state = nnx.split(model)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda s, x: nnx.merge(graphdef, s)(x))(state, image)
    return str(jaxpr).count("platform_index")

  assert choices("conv") == 0 and choices("shift") == 0
  # Seven depthwise, and with them two 1x1 each; three blocks' two; the head.
  assert choices("auto") == 7 * 3 + 3 * 2 + 1


def test_unknown_depthwise_is_refused():
  with pytest.raises(ValueError, match=r"depthwise='fast'.*auto, conv, shift"):
    depthwise.depthwise_conv(
      _array(1, 4, 4, 2), _array(3, 3, 1, 2), kind="fast"
    )


def test_stride_two_window_is_centred_on_even_pixels():
  # torch's padding of 1; XLA's "SAME" would centre it on odd pixels.
  conv = layers.Conv(1, 1, 3, stride=2)
  conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
  x = _array(1, 6, 6, 1)
  np.testing.assert_array_equal(conv(x), x[:, ::2, ::2])


def _batch_norm_reference(x, groups, scale, bias, eps=1e-5):
  """float64 output, and the mean over groups of the means and variances."""
  outputs, means, variances = [], [], []
  for part in np.split(x.astype(np.float64), groups):
    rows = part.reshape(-1, part.shape[-1])
    mean, var = rows.mean(0), rows.var(0)
    outputs.append((part - mean) / np.sqrt(var + eps) * scale + bias)
    means.append(mean)
    variances.append(rows.var(0, ddof=1))
  return np.concatenate(outputs), np.mean(means, 0), np.mean(variances, 0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_batch_norm_groups_equal_numpy(groups):
  norm = layers.BatchNorm(3, groups=groups)
  scale, bias = _array(3), _array(3)
  norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
  mean_before, var_before = _array(3), np.abs(_array(3)) + 1
  norm.mean[...] = jnp.asarray(mean_before)
  norm.var[...] = jnp.asarray(var_before)
  x = 5 + 3 * _array(4, 2, 3, 3)  # so few values that n - 1 matters
  expected, mean, var = _batch_norm_reference(x, groups, scale, bias)
  np.testing.assert_allclose(norm(x, train=True), expected, atol=1e-5)
  np.testing.assert_allclose(
    norm.mean[...], 0.9 * mean_before + 0.1 * mean, rtol=1e-5
  )
  np.testing.assert_allclose(
    norm.var[...], 0.9 * var_before + 0.1 * var, rtol=1e-5
  )


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_gradient_equals_the_derived_one(groups):
  shape = (groups, 4 // groups, 6, 5)
  x, scale, bias = 3 * _array(*shape) + 2, _array(5), _array(5)
  weight = _array(*shape)  # a plain sum has no gradient

  def derived(x, scale, bias):
    centred = x - x.mean((1, 2), keepdims=True)
    std = jnp.sqrt(jnp.square(centred).mean((1, 2), keepdims=True) + 1e-5)
    return jnp.sum(weight * (centred / std * scale + bias))

  def ours(*args):
    y, mean, var = normalize.batch_norm(*args, 1e-5)
    return jnp.sum(weight * y) + jnp.sum(mean) + jnp.sum(var)

  arguments = (x, scale, bias)
  expected = jax.grad(derived, argnums=(0, 1, 2))(*arguments)
  actual = jax.jit(jax.grad(ours, argnums=(0, 1, 2)))(*arguments)
  for a, e in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, e, atol=2e-5)


def test_batch_norm_evaluates_with_running_statistics():
  norm = layers.BatchNorm(3)
  norm.mean[...] = jnp.asarray([1.0, 2.0, 3.0])
  norm.var[...] = jnp.asarray([4.0, 9.0, 16.0])
  x = _array(2, 2, 2, 3)
  expected = (x - [1, 2, 3]) / np.sqrt(np.array([4, 9, 16]) + 1e-5)
  before = nnx.to_pure_dict(nnx.state(norm))
  np.testing.assert_allclose(norm(x), expected, atol=1e-5)
  jax.tree.map(
    np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(norm))
  )


def test_batch_norm_statistics_survive_bfloat16():
  norm = layers.BatchNorm(1, dtype=jnp.bfloat16)
  x = jnp.asarray(1000 + _array(64, 4, 4, 1), jnp.bfloat16)
  assert norm(x, train=True).dtype == jnp.bfloat16
  exact = np.asarray(x, np.float64).var(ddof=1)
  np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * exact, rtol=1e-4)


def test_batch_norm_refuses_groups_that_do_not_divide():
  with pytest.raises(ValueError, match=r"bn_groups=3.* 4 images"):
    layers.BatchNorm(2, groups=3)(jnp.zeros((4, 1, 1, 2)), train=True)


def test_layer_norm_equals_numpy():
  norm = layers.LayerNorm(6)
  norm.scale[...], norm.bias[...] = jnp.arange(6.0), jnp.ones(6)
  x = 100 + _array(2, 3, 6)
  wide = x.astype(np.float64)
  centred = wide - wide.mean(-1, keepdims=True)
  std = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
  expected = centred / std * np.arange(6) + 1
  np.testing.assert_allclose(norm(x), expected, atol=1e-4)


def test_inverted_residual_adds_only_where_the_shape_stays():
  shapes = {(4, 4, 1): True, (4, 6, 1): False, (4, 4, 2): False}
  for (in_channels, out_channels, stride), residual in shapes.items():
    block = layers.InvertedResidual(
      in_channels, out_channels, expansion=2, stride=stride
    )
    x = _array(1, 4, 4, in_channels)
    # All weights are zero: what is left is the input, or nothing.
    expected = (
      x if residual else np.zeros((1, 4 // stride, 4 // stride, out_channels))
    )
    np.testing.assert_array_equal(block(x), expected)
