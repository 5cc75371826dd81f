import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax.tasks import mix as mix_lib

B = 64


def _mixed(**alphas):
  """Images that are their number everywhere, mixed: pixels and shares."""
  numbers = jnp.arange(B, dtype=jnp.float32)
  images = jnp.broadcast_to(numbers[:, None, None, None], (B, 20, 30, 3))
  mix = mix_lib.Mix(**alphas)
  mixed, others, share = mix(images, jnp.arange(B), jax.random.key(0))
  np.testing.assert_array_equal(others, np.roll(np.arange(B), 1))
  return np.asarray(mixed), np.asarray(share)


@pytest.mark.parametrize(
  "alphas",
  [
    {"mixup": 0.2},
    {"mixup": 1.0},
    {"cutmix": 1.0},
    {"mixup": 0.2, "cutmix": 1.0},
  ],
  ids=str,
)
def test_labels_have_the_shares_of_the_pixels(alphas):
  mixed, share = _mixed(**alphas)
  own, other = np.arange(B), np.roll(np.arange(B), 1)
  expected = share * own + (1 - share) * other
  np.testing.assert_allclose(mixed.mean((1, 2, 3)), expected, rtol=1e-4)
  assert share.min() >= 0 and share.max() <= 1
  assert np.ptp(share) > 0.5


def test_cutmix_pastes_one_box_and_mixup_blends_evenly():
  mixed, share = _mixed(cutmix=1.0)
  own = np.arange(B)[:, None, None]
  for inside, kept in zip(mixed[..., 0] != own, share, strict=True):
    rows, columns = inside.any(1), inside.any(0)
    np.testing.assert_array_equal(inside, rows[:, None] & columns)
    assert np.diff(np.flatnonzero(rows)).max(initial=1) == 1
    np.testing.assert_allclose(1 - kept, inside.mean(), atol=1e-6)
  mixed, _ = _mixed(mixup=1.0)
  assert np.ptp(mixed, axis=(1, 2, 3)).max() == 0


def test_both_are_drawn_evenly():
  mixed, _ = _mixed(mixup=1.0, cutmix=1.0)
  blended = (mixed != np.round(mixed)).any(axis=(1, 2, 3))
  assert 0.3 < blended.mean() < 0.7


def test_shares_are_of_the_beta_distribution():
  # Beta(1, 1) is even; Beta(0.2, 0.2) lies at the ends.
  _, even = _mixed(mixup=1.0)
  _, ends = _mixed(mixup=0.2)
  assert 0.2 < np.mean((even > 0.25) & (even < 0.75)) < 0.8
  assert np.mean((ends > 0.25) & (ends < 0.75)) < 0.35


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_bad_alpha_is_refused(alpha):
  with pytest.raises(ValueError, match=f"cutmix={alpha} must be a number"):
    mix_lib.Mix(cutmix=alpha)
