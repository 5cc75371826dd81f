"""What is computed from logits and labels: plain numpy, in float64.

Letters: `n` images, `k` classes.
"""

import dataclasses
import math

import numpy as np

NUM_BINS = 15  # of confidence, as in Guo et al. 2017
_LOWEST, _HIGHEST = 1e-2, 1e2  # of the temperature


def softmax(logits: np.ndarray) -> np.ndarray:
  """Probabilities `[n, k]`, float64."""
  shifted = np.asarray(logits, np.float64)
  shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
  return shifted / shifted.sum(axis=-1, keepdims=True)


def wilson(successes: float, trials: int) -> tuple[float, float]:
  """The 95 % interval of a share (Wilson 1927): bounds in [0, 1].

  Unlike the normal approximation it holds for few trials, and near 0 and 1.
  """
  if trials < 1:
    return 0.0, 1.0
  z = 1.959963984540054  # the normal distribution's 97.5 % quantile
  share = successes / trials
  centre = share + z * z / (2 * trials)
  spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
  scale = 1 + z * z / trials
  return max((centre - spread) / scale, 0), min((centre + spread) / scale, 1)


def confusion(
  labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
  """Counts `[k, k]`: rows are true classes, columns predicted ones."""
  pairs = labels.astype(np.int64) * num_classes + predictions
  counts = np.bincount(pairs, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes)


@dataclasses.dataclass(frozen=True)
class PerClass:
  """Arrays `[k]`; a share of nothing is 0.

  Attributes:
    support: images of the class.
    predicted: images that were said to be of the class.
    precision: of those said to be of the class, the share that is.
    recall: of those of the class, the share that was said to be.
    f1: their harmonic mean.
  """

  support: np.ndarray
  predicted: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  f1: np.ndarray


def per_class(counts: np.ndarray) -> PerClass:
  """From a confusion matrix."""
  right = np.diag(counts)
  support, predicted = counts.sum(axis=1), counts.sum(axis=0)
  return PerClass(
    support,
    predicted,
    _share(right, predicted),
    _share(right, support),
    _share(2 * right, support + predicted),
  )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  return part / np.maximum(whole, 1)


def most_confused(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
  """(true class, predicted class, images) of the commonest mistakes."""
  wrong = counts.copy()
  np.fill_diagonal(wrong, 0)
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
  mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
  chosen = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
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
  """Bins of equal width over the probability of the likeliest class.

  A confidence c belongs to bin i where i < c * NUM_BINS <= i + 1 (Guo et al.
  2017, "On calibration of modern neural networks", section 2).
  """
  confidence = probabilities.max(axis=1)
  right = probabilities.argmax(axis=1) == labels
  bins = np.ceil(confidence * NUM_BINS).astype(np.int64) - 1
  bins = bins.clip(0, NUM_BINS - 1)
  count = np.bincount(bins, minlength=NUM_BINS)
  summed = np.bincount(bins, confidence, NUM_BINS)
  hits = np.bincount(bins, right.astype(float), NUM_BINS)
  ece = np.abs(hits - summed).sum() / max(len(labels), 1)
  return Calibration(
    count, _share(summed, count), _share(hits, count), float(ece)
  )


def temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
  """What to divide logits by, so that confidence fits accuracy best.

  It minimises the negative log-likelihood of the labels (Guo et al. 2017,
  section 4.2), which is convex in 1 / temperature: its slope is bisected.

  Returns:
    The temperature; None where none from 0.01 to 100 is best, as when every
    image is classified right.
  """
  z = np.asarray(logits, np.float64)
  own = z[np.arange(len(z)), labels]

  def slope(beta: float) -> float:
    return float(((softmax(beta * z) * z).sum(axis=1) - own).mean())

  low, high = math.log(1 / _HIGHEST), math.log(1 / _LOWEST)
  if slope(math.exp(low)) >= 0 or slope(math.exp(high)) <= 0:
    return None
  while high - low > 1e-6:
    middle = (low + high) / 2
    if slope(math.exp(middle)) > 0:
      high = middle
    else:
      low = middle
  return math.exp(-(low + high) / 2)


def ece_after(logits: np.ndarray, labels: np.ndarray) -> float | None:
  """The calibration error with a temperature fitted on other images.

  Every second image is scaled by what fits the rest best, and the other way
  round: a temperature fitted on the images it is judged by would flatter.
  """
  scaled = np.array(logits, np.float64)
  for part in (0, 1):
    fitted = temperature(logits[1 - part :: 2], labels[1 - part :: 2])
    if fitted is None:
      return None
    scaled[part::2] /= fitted
  return calibration(softmax(scaled), labels).ece
