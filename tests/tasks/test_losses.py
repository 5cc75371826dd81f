import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax.tasks import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 7)).astype(np.float32) * 4
LABELS = RNG.integers(0, 7, 12)


def _log_softmax(logits):
  wide = logits.astype(np.float64)
  return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_numpy(smoothing):
  log_p = _log_softmax(LOGITS)
  nll = -log_p[np.arange(12), LABELS]
  expected = (1 - smoothing) * nll - smoothing / 7 * log_p.sum(-1)
  actual = losses.cross_entropy(
    jnp.asarray(LOGITS), jnp.asarray(LABELS), label_smoothing=smoothing
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_metric_sums_equal_numpy_under_the_mask():
  mask = RNG.integers(0, 2, 12).astype(np.float32)
  order = np.argsort(-LOGITS, axis=-1)
  expected = {
    "top1": (mask * (order[:, 0] == LABELS)).sum(),
    "top5": (mask * (order[:, :5] == LABELS[:, None]).any(-1)).sum(),
    "loss": -(mask * _log_softmax(LOGITS)[np.arange(12), LABELS]).sum(),
    "count": mask.sum(),
  }
  actual = losses.metric_sums(
    jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(mask)
  )
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


def test_padding_may_hold_anything():
  logits = jnp.asarray([[1.0, 0.0], [np.nan, np.inf]])
  sums = losses.metric_sums(
    logits, jnp.asarray([0, 0]), jnp.asarray([1.0, 0.0])
  )
  assert float(sums["top1"]) == float(sums["count"]) == 1
  assert np.isfinite(sums["loss"])


def test_constant_and_broken_nets_are_not_right():
  ones = jnp.ones(4)
  labels = jnp.asarray([0, 1, 2, 3])
  constant = losses.metric_sums(jnp.zeros((4, 8)), labels, ones)
  assert float(constant["top1"]) == 1  # class 0 comes first, and only once
  broken = losses.metric_sums(jnp.full((4, 8), jnp.nan), labels, ones)
  assert float(broken["top1"]) == float(broken["top5"]) == 0


def test_balanced_weights_even_out_the_classes():
  labels = np.array([0] * 6 + [1] * 3 + [3])
  weights = np.array(losses.balanced_weights(labels, 4))
  counts = np.bincount(labels, minlength=4)
  np.testing.assert_allclose((weights * counts)[[0, 1, 3]], 10 / 3)
  assert weights[2] == 0
  np.testing.assert_allclose(weights[labels].mean(), 1)
