"""What the page says of a classifier's predictions.

Letters: `n` images, `k` classes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from scipy import special
from sklearn import metrics

from mobilevit_jax.data import examples
from mobilevit_jax.report import charts
from mobilevit_jax.report import confusion
from mobilevit_jax.report import context
from mobilevit_jax.report import pictures
from mobilevit_jax.report import statistics


class Predictions:
  """What a run's net says of each image; broken ones are left out.

  Attributes:
    source: the images.
    names: of the classes.
    ids: numbers of the images in the source, int `[n]`.
    labels: their classes, int `[n]`.
    rank: how many classes come before the image's own, int `[n]`.
    logits: float64 `[n, k]`.
    probabilities: float64 `[n, k]`.
    said: the likeliest classes, int `[n]`.
    counts: of the images, int `[k, k]`: rows are true classes, columns
      predicted ones.
    scores: precision, recall and F1 of the classes, `[3, k]`; 0 of nothing.
  """

  template: ClassVar[str] = "classify"

  def __init__(self, run: context.Run, most_mistakes: int = 24):
    """Evaluates as the run did: its split, crop, size and batch.

    Args:
      run: what to evaluate.
      most_mistakes: pictures to show.
    """
    self._most = most_mistakes
    self.source, self.names = run.setup.source, run.class_names
    # --- One pass over the images, and all that is known of each.
    columns = ("ids", "labels", "rank", "logits")
    rows = [[one[name] for name in columns] for one in run.rows()]
    # `rank`: how many classes come before the right one.
    self.ids, self.labels, self.rank, logits = map(
      np.concatenate, zip(*rows, strict=True)
    )
    if not len(self.ids):
      raise ValueError(
        f"all {len(self.source)} images of {self.source.name} are broken"
      )
    # float64: the report's sums are over all images, and temperature is fitted
    # on them.
    self.logits = logits.astype(np.float64)
    self.probabilities = special.softmax(self.logits, axis=1)
    self.said = self.logits.argmax(axis=1)
    # --- Counts and scores by scikit-learn, over all classes of the net,
    # whether or not they occur.
    kinds = np.arange(len(self.names))
    # scikit-learn's stubs only know the word "warn".
    of_none: Any = 0  # a number may be given, though the default is a word
    self.counts = metrics.confusion_matrix(self.labels, self.said, labels=kinds)
    *scores, _ = metrics.precision_recall_fscore_support(
      self.labels, self.said, labels=kinds, zero_division=of_none
    )
    self.scores = np.array(scores)
    # Right answers are the diagonal; Wilson's interval holds for few images
    # too.
    low, high = statistics.wilson(int(np.trace(self.counts)), len(self.ids))
    support = self.counts.sum(axis=1)
    # Always saying the commonest class gives so much; a worse run may be luck.
    self._commonest = self.names[int(support.argmax())]
    self._guess = support.max() / len(self.ids)
    self._guessed = low <= self._guess
    self._interval = f"{low:.1%} to {high:.1%}"
    self._top1 = f"{np.trace(self.counts) / len(self.ids):.1%}"
    self._calibrated = statistics.calibration(self.probabilities, self.labels)

  def lead(self) -> tuple[str, str]:
    """The page's first sentence, but for its end: the number, and the rest."""
    total, present = len(self.ids), np.unique(self.labels).size
    broken = len(self.source) - total
    left_out = f" ({broken} broken ones were left out)" if broken else ""
    return self._top1, (
      f"of {total:,} images in {present} classes{left_out} are classified "
      f"right (95% interval {self._interval}{self._verdict()})"
    )

  def _verdict(self) -> str:
    if not self._guessed:
      return ""
    return (
      f"; no better than guessing: always saying {self._commonest} gives "
      f"{self._guess:.1%}"
    )

  def cards(self) -> list[tuple[str, str, str]]:
    """Numbers to show: what it is, the number, a remark."""
    total, support = len(self.ids), self.counts.sum(axis=1)
    present = support > 0
    # Balanced accuracy: absent classes have no recall.
    recall = self.scores[1, present].mean()
    cards = [
      ("top-1", self._top1, f"95%: {self._interval}"),
      # Guessing the commonest class is the score to beat.
      ("top-5", f"{(self.rank < 5).mean():.1%}", "right among five"),
      ("mean of classes", f"{recall:.1%}", "each counted alike"),
      (
        "guessing",
        f"{self._guess:.1%}",
        f"always {self._commonest}",
      ),
      ("calibration error", f"{self._calibrated.ece:.3f}", "0 is perfect"),
      ("evaluated", f"{total:,}", f"images of {present.sum()} classes"),
    ]
    return [card for card in cards if card[0] != "top-5" or len(self.names) > 5]

  def sections(self) -> dict[str, Any]:
    """Parts of the page by their titles, in order."""
    return {
      "Classes": self._classes(),
      "Confusion": confusion.view(self.counts, self.names),
      "Worst mistakes": self._mistakes(),
      "Calibration": self._calibration(),
    }

  def lines(self) -> Iterator[Sequence[object]]:
    """Of `predictions.csv`: its head, and a line for each image."""
    yield ["name", "label", "prediction", "probability", "of_label"]
    pairs = zip(self.labels.tolist(), self.said.tolist(), strict=True)
    for row, (label, said) in enumerate(pairs):
      # What was said, and what would have been right.
      shares = self.probabilities[row, [said, label]]
      yield [
        examples.located(self.source, int(self.ids[row])),
        self.names[label],
        self.names[said],
        *(f"{share:.6f}" for share in shares),
      ]

  def _classes(self) -> dict[str, Any]:
    """Precision, recall, F1 and support of every class that occurs."""
    support, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
    occurs = np.flatnonzero(support + predicted).tolist()
    means = self.scores[:, support > 0].mean(axis=1)
    total = f"{len(self.ids):,}"
    return {
      "rows": [
        [
          self.names[label],
          int(support[label]),
          int(predicted[label]),
          *self.scores[:, label].tolist(),
        ]
        for label in occurs
      ],
      "foot": ["mean of classes", total, total, *(f"{x:.1%}" for x in means)],
      "absent": len(self.names) - len(occurs),
    }

  def _mistakes(self) -> dict[str, Any]:
    """The images that the net was surest and wrong about."""
    sure = self.probabilities.max(axis=1)
    wrong = np.flatnonzero(self.said != self.labels)
    # The surest mistakes first: they are labels to check, or blind spots.
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][: self._most]
    return {
      "wrong": len(wrong),
      "worst": [self._mistake(row) for row in worst.tolist()],
    }

  def _mistake(self, row: int) -> dict[str, Any]:
    """An image with what it is, what was said, and its file."""
    # Row: the number of the answer; index: that of the image in its source.
    true, said = self.labels[row], self.said[row]
    index, shares = int(self.ids[row]), self.probabilities[row]
    return {
      "picture": pictures.thumbnail(self.source, index),
      "place": pictures.place(self.source, index),
      "true": self.names[true],
      "said": self.names[said],
      "of_true": float(shares[true]),
      "of_said": float(shares[said]),
    }

  def _calibration(self) -> dict[str, Any]:
    """Whether 80 % sure is right in 80 % of the cases."""
    found = self._calibrated
    sure = float(self.probabilities.max(axis=1).mean())
    right = float((self.said == self.labels).mean())
    # Mean confidence against accuracy: equal for a calibrated net.
    verdict = "too sure" if sure > right else "not sure enough"
    if abs(sure - right) < 0.005:
      verdict = "about as sure as it should be"
    if self._guessed:
      verdict = "no better than guessing, however sure"
    return {
      "sure": sure,
      "right": right,
      "verdict": verdict,
      "ece": found.ece,
      "temperature": statistics.temperature(self.logits, self.labels),
      "ece_after": statistics.ece_after(self.logits, self.labels),
      "chart": charts.reliability(found),
      "unit": "images",
      "about": (
        "The error (ECE) is the mean over all images of |accuracy - "
        f"confidence| of their bin, in {len(found.count)} bins of equal width "
        "over the probability of the likeliest class (Guo et al. 2017)."
      ),
    }
