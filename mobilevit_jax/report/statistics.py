"""What is computed from logits and labels, in float64.

Letters: `n` images, `k` classes.
"""

import dataclasses
import math

import numpy as np
from scipy import optimize
from scipy import special
from scipy import stats

NUM_BINS = 15  # of confidence, as in Guo et al. 2017
_LOWEST, _HIGHEST = 1e-2, 1e2  # of the temperature


def wilson(successes: int, trials: int) -> tuple[float, float]:
  """The 95 % interval of a share (Wilson 1927): bounds in [0, 1].

  Unlike the normal approximation it holds for few trials, and near 0 and 1.
  """
  # (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z =
  # 1.96.
  test = stats.binomtest(successes, trials)
  interval = test.proportion_ci(method="wilson")
  return interval.low, interval.high


def most_confused(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
  """(true class, predicted class, images) of the commonest mistakes."""
  # Without the diagonal, which is what was right.
  wrong = counts * (1 - np.eye(len(counts), dtype=int))
  order = np.argsort(-wrong, axis=None, kind="stable")[:most]
  pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
  return [(int(t), int(p), int(wrong[t, p])) for t, p in pairs if wrong[t, p]]


def gathered(counts: np.ndarray, most: int) -> tuple[np.ndarray, list[int]]:
  """The classes with the most mistakes, and all others as one.

  Args:
    counts: a confusion matrix.
    most: rows and columns that the result may have.

  Returns:
    A confusion matrix of the same total and the classes of its rows, in their
    own order. Where classes were left out, the last row and column are theirs.
  """
  k = len(counts)
  if k <= most:
    return counts, [*range(k)]
  # Off the diagonal, in rows and columns: taken for others, or others for it.
  mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
  chosen = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
  # From each class to its row of the result; all others share the last one.
  group = np.full(k, most - 1)
  group[chosen] = np.arange(most - 1)
  result = np.zeros((most, most), counts.dtype)
  np.add.at(result, (group[:, None], group[None, :]), counts)
  return result, chosen.tolist()


@dataclasses.dataclass(frozen=True)
class Calibration:
  """How far confidence and accuracy agree.

  Attributes:
    count: images in each bin of confidence, `[NUM_BINS]`.
    confidence: mean confidence of each bin; 0 where it is empty.
    accuracy: share of right answers of each bin; 0 where it is empty.
    ece: expected calibration error: the mean over images of their bin's
      |accuracy - confidence|.
  """

  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray
  ece: float


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
  """Bins of equal width over the probability of the likeliest class."""
  right = probabilities.argmax(axis=1) == labels
  return binned(probabilities.max(axis=1), right)


def binned(sure: np.ndarray, right: np.ndarray) -> Calibration:
  """Bins of equal width over how sure each answer is.

  A confidence c belongs to bin i where i < c * NUM_BINS <= i + 1 (Guo et al.
  2017, "On calibration of modern neural networks", section 2).

  Args:
    sure: confidences, `[n]`, in [0, 1].
    right: which answers are right, bool `[n]`.
  """
  bins = np.ceil(sure * NUM_BINS).astype(int).clip(1, NUM_BINS) - 1
  # One bincount each: images, confidences and hits of every bin.
  count, summed, hits = (
    np.bincount(bins, values, NUM_BINS) for values in (None, sure, right)
  )
  filled = np.maximum(count, 1)
  # sum over bins of |hits - summed confidence|, over all images: Guo et al.
  # 2017, equation 3.
  ece = float(np.abs(hits - summed).sum() / max(len(sure), 1))
  return Calibration(count, summed / filled, hits / filled, ece)


def temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
  """What to divide logits by, so that confidence fits accuracy best.

  It minimises the negative log-likelihood of the labels (Guo et al. 2017,
  section 4.2), which is convex in 1 / temperature: its slope has one root.

  Returns:
    The temperature; None where none from 0.01 to 100 is best, as when every
    image is classified right.
  """
  z = np.asarray(logits, np.float64)
  # beta = 1 / temperature, searched in its logarithm, since temperatures from
  # 0.01 to 100 matter alike.
  own = z[np.arange(len(z)), labels]

  def slope(log_beta: float) -> float:
    shares = special.softmax(math.exp(log_beta) * z, axis=1)
    # d NLL / d beta = mean(sum over k of p_k z_k - z_label).
    return float(((shares * z).sum(axis=1) - own).mean())

  # No sign change: the best one lies beyond the range.
  low, high = -math.log(_HIGHEST), -math.log(_LOWEST)
  if not slope(low) < 0 < slope(high):
    return None
  return math.exp(-optimize.root_scalar(slope, bracket=(low, high)).root)


def ece_after(logits: np.ndarray, labels: np.ndarray) -> float | None:
  """The calibration error with a temperature fitted on other images.

  Every second image is scaled by what fits the rest best, and the other way
  round: a temperature fitted on the images it is judged by would flatter.
  """
  scaled = np.array(logits, np.float64)
  # Even images are scaled by what odd ones fit, and the other way round.
  for part in (0, 1):
    fitted = temperature(logits[1 - part :: 2], labels[1 - part :: 2])
    if fitted is None:
      return None
    scaled[part::2] /= fitted
  return calibration(special.softmax(scaled, axis=1), labels).ece
