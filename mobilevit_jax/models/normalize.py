"""Normalisation by batch statistics, fast on every platform."""

import functools

import jax
from jax import lax
import jax.numpy as jnp

Normalized = tuple[jax.Array, jax.Array, jax.Array]


def batch_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> Normalized:
  """Normalises each group by its own mean and variance, then scales.

  On CPU the gradient is written out, in two sums and one pass over the map;
  the derived one takes more of both. GPU and TPU keep the derived one.

  Args:
    x: `[groups, b, h * w, c]`, float32 or wider.
    scale: `[c]`.
    bias: `[c]`.
    epsilon: added to the variance.

  Returns:
    The map, and `[groups, 1, 1, c]` means and biased variances, through which
    no gradient flows.
  """

  def derived(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Normalized:
    # Gradients must not flow through the statistics that are recorded.
    y, mean, var = _normalize(x, scale, bias, epsilon)
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)

  def written_out(
    x: jax.Array, scale: jax.Array, bias: jax.Array
  ) -> Normalized:
    return _written_out(x, scale, bias, epsilon)

  return lax.platform_dependent(
    x, scale, bias, cpu=written_out, default=derived
  )


# x is [groups, b, h w, c]: axes 1 and 2 are what a group's statistics are taken
# over.
def _normalize(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> Normalized:
  mean = jnp.mean(x, axis=(1, 2), keepdims=True)
  var = jnp.mean(jnp.square(x - mean), axis=(1, 2), keepdims=True)
  return (x - mean) * (scale * lax.rsqrt(var + epsilon)) + bias, mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _written_out(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> Normalized:
  return _normalize(x, scale, bias, epsilon)


def _forward(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[Normalized, tuple[jax.Array, ...]]:
  y, mean, var = _normalize(x, scale, bias, epsilon)
  return (y, mean, var), (x, mean, lax.rsqrt(var + epsilon), scale)


def _backward(
  unused_epsilon: float,
  saved: tuple[jax.Array, ...],
  grads: Normalized,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  # With z = (x - mean) / std and n = b h w values a channel: dx = scale / std
  # (dy - sum(dy) / n - z sum(dy z) / n), dscale = sum(dy z), dbias = sum(dy).
  # Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3.
  x, mean, inverse_std, scale = saved
  grad = grads[0]
  normal = (x - mean) * inverse_std
  count = x.shape[1] * x.shape[2]
  total = jnp.sum(grad, axis=(1, 2), keepdims=True)
  along = jnp.sum(grad * normal, axis=(1, 2), keepdims=True)
  # Only two sums over the map are needed: those are shared by all three.
  grad_x = grad - total / count - normal * (along / count)
  return (
    grad_x * (scale * inverse_std),
    jnp.sum(along, axis=(0, 1, 2)),
    jnp.sum(total, axis=(0, 1, 2)),
  )


_written_out.defvjp(_forward, _backward)
