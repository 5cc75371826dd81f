"""Statistics of the report against plain loops and other searches."""

import math

import numpy as np
import pytest
import scipy.optimize

from mobilevit_jax.report import statistics


def _guesses(seed, n=500, k=7):
  """Logits that are right more often than not; class k - 1 never occurs."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, k - 1, n)
  logits = rng.normal(size=(n, k)) * 3
  logits[np.arange(n), labels] += 3
  return logits.astype(np.float32), labels


def _softmax(logits):
  powers = np.exp(logits - logits.max(axis=1, keepdims=True))
  return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
  ("successes", "trials"), [(0, 1), (1, 1), (0, 20), (7, 20), (564, 865)]
)
def test_wilson_bounds_solve_its_equation(successes, trials):
  # The bounds are the shares from which the seen one is 1.96 deviations off.
  share, z = successes / trials, 1.959963984540054

  def distance(p):
    return (share - p) ** 2 - z * z * p * (1 - p) / trials

  low, high = statistics.wilson(successes, trials)
  assert 0 <= low <= share <= high <= 1
  for bound in (low, high):
    assert distance(bound) == pytest.approx(0, abs=1e-12)
  assert low < high


def test_calibration_is_that_of_a_plain_loop():
  logits, labels = _guesses(3)
  probabilities = _softmax(logits)
  found = statistics.calibration(probabilities, labels)
  total = 0.0
  for index in range(statistics.NUM_BINS):
    low = index / statistics.NUM_BINS
    high = (index + 1) / statistics.NUM_BINS
    members = [
      (max(row), int(np.argmax(row)) == label)
      for row, label in zip(probabilities, labels, strict=True)
      if low < max(row) <= high
    ]
    assert found.count[index] == len(members)
    if members:
      confidence = sum(sure for sure, _ in members) / len(members)
      accuracy = sum(hit for _, hit in members) / len(members)
      assert found.confidence[index] == pytest.approx(confidence)
      assert found.accuracy[index] == pytest.approx(accuracy)
      total += len(members) / len(labels) * abs(accuracy - confidence)
  assert found.ece == pytest.approx(total)
  assert found.count.sum() == len(labels)


def test_a_sure_and_right_net_is_calibrated_and_a_sure_and_wrong_one_is_not():
  labels = np.zeros(10, int)
  sure = np.eye(2)[np.zeros(10, int)]
  assert statistics.calibration(sure, labels).ece == 0
  assert statistics.calibration(sure, 1 - labels).ece == 1


@pytest.mark.parametrize("stretch", [0.2, 1.0, 5.0])
def test_temperature_has_the_least_cross_entropy(stretch):
  logits, labels = _guesses(4)
  logits = logits * stretch

  def loss(log_t):
    z = logits / math.exp(log_t)
    z -= z.max(axis=1, keepdims=True)
    own = z[np.arange(len(z)), labels]
    return (np.log(np.exp(z).sum(axis=1)) - own).mean()

  best = scipy.optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded")
  found = statistics.temperature(logits, labels)
  assert found == pytest.approx(math.exp(best.x), rel=1e-3)
  # It undoes a stretch of the logits.
  plain = statistics.temperature(logits / stretch, labels)
  assert found == pytest.approx(stretch * plain, rel=1e-3)


def test_temperature_is_unknown_without_mistakes():
  logits = np.eye(3)[[0, 1, 2]] * 4
  assert statistics.temperature(logits, np.arange(3)) is None
  assert statistics.ece_after(logits, np.arange(3)) is None


def test_temperature_of_the_other_half_mends_an_overconfident_net():
  rng = np.random.default_rng(5)
  logits = rng.normal(size=(4000, 5)) * 2
  cumulated = _softmax(logits).cumsum(axis=1)
  labels = (cumulated < rng.random((4000, 1))).sum(axis=1).clip(0, 4)
  honest = statistics.calibration(_softmax(logits), labels).ece
  loud = statistics.calibration(_softmax(logits * 4), labels).ece
  mended = statistics.ece_after(logits * 4, labels)
  assert honest < 0.03 < 0.15 < loud
  assert mended < 0.03


def test_most_confused_are_the_largest_off_the_diagonal():
  counts = np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
  assert statistics.most_confused(counts, 2) == [(1, 0, 5), (0, 1, 2)]
  assert len(statistics.most_confused(counts, 9)) == 3


def test_gathering_keeps_the_total_and_the_classes_with_most_mistakes():
  rng = np.random.default_rng(6)
  counts = rng.integers(0, 3, (40, 40)) + 50 * np.eye(40, dtype=int)
  counts[3, 8] += 90
  shown, chosen = statistics.gathered(counts, 11)
  assert shown.shape == (11, 11) and len(chosen) == 10
  assert shown.sum() == counts.sum()
  assert chosen == sorted(chosen) and {3, 8} <= {*chosen}
  inside = counts[np.ix_(chosen, chosen)]
  np.testing.assert_array_equal(shown[:10, :10], inside)
  rest = np.delete(np.arange(40), chosen)
  assert shown[10, 10] == counts[np.ix_(rest, rest)].sum()
  whole, everyone = statistics.gathered(counts, 40)
  assert whole is counts and everyone == [*range(40)]
