"""What the page says of a classifier's predictions.

Letters: `n` images, `k` classes.
"""

from collections.abc import Iterator, Sequence
import pathlib
from typing import Any

import numpy as np
from scipy import special
from sklearn import metrics

from mobilevit_jax.data import examples
from mobilevit_jax.report import charts
from mobilevit_jax.report import context
from mobilevit_jax.report import pictures
from mobilevit_jax.report import statistics
from mobilevit_jax.report.markup import Child
from mobilevit_jax.report.markup import Markup
from mobilevit_jax.report.markup import table
from mobilevit_jax.report.markup import tag

_MATRIX = 26  # rows that fit on a screen
_LARGE = 12  # rows before they get smaller
_PAIRS = 12


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

  def __init__(self, run: context.Run):
    """Evaluates as the run did: its split, crop, size and batch."""
    self.source, self.names = run.setup.source, run.class_names
    columns = ("ids", "labels", "rank", "logits")
    rows = [[one[name] for name in columns] for one in run.rows()]
    self.ids, self.labels, self.rank, logits = map(
      np.concatenate, zip(*rows, strict=True)
    )
    if not len(self.ids):
      raise ValueError(
        f"all {len(self.source)} images of {self.source.name} are broken"
      )
    self.logits = logits.astype(np.float64)
    self.probabilities = special.softmax(self.logits, axis=1)
    self.said = self.logits.argmax(axis=1)
    kinds = np.arange(len(self.names))
    of_none: Any = 0  # a number may be given, though the default is a word
    self.counts = metrics.confusion_matrix(self.labels, self.said, labels=kinds)
    *scores, _ = metrics.precision_recall_fscore_support(
      self.labels, self.said, labels=kinds, zero_division=of_none
    )
    self.scores = np.array(scores)
    low, high = statistics.wilson(int(np.trace(self.counts)), len(self.ids))
    self._interval = f"{low:.1%} to {high:.1%}"
    self._top1 = f"{np.trace(self.counts) / len(self.ids):.1%}"
    self._calibrated = statistics.calibration(self.probabilities, self.labels)

  def lead(self) -> Child:
    """The page's first sentence, but for its end."""
    total, present = len(self.ids), np.unique(self.labels).size
    broken = len(self.source) - total
    return [
      tag("b", self._top1),
      f" of {total:,} images in {present} classes",
      f" ({broken} broken ones were left out)" if broken else None,
      f" are classified right (95% interval {self._interval})",
    ]

  def cards(self) -> list[tuple[str, str, str]]:
    """Numbers to show: what it is, the number, a remark."""
    total, support = len(self.ids), self.counts.sum(axis=1)
    present, commonest = support > 0, int(support.argmax())
    recall = self.scores[1, present].mean()
    cards = [
      ("top-1", self._top1, f"95%: {self._interval}"),
      ("top-5", f"{(self.rank < 5).mean():.1%}", "right among five"),
      ("mean of classes", f"{recall:.1%}", "each counted alike"),
      (
        "guessing",
        f"{support[commonest] / total:.1%}",
        f"always {self.names[commonest]}",
      ),
      ("calibration error", f"{self._calibrated.ece:.3f}", "0 is perfect"),
      ("evaluated", f"{total:,}", f"images of {present.sum()} classes"),
    ]
    return [card for card in cards if card[0] != "top-5" or len(self.names) > 5]

  def sections(self, most_mistakes: int) -> dict[str, Child]:
    """Parts of the page by their titles, in order."""
    return {
      "Classes": self._classes(),
      "Confusion": confusion(self.counts, self.names),
      "Worst mistakes": self._mistakes(most_mistakes),
      "Calibration": self._calibration(),
    }

  def lines(self) -> Iterator[Sequence[object]]:
    """Of `predictions.csv`: its head, and a line for each image."""
    yield ["name", "label", "prediction", "probability", "of_label"]
    pairs = zip(self.labels.tolist(), self.said.tolist(), strict=True)
    for row, (label, said) in enumerate(pairs):
      shares = self.probabilities[row, [said, label]]
      yield [
        examples.located(self.source, int(self.ids[row])),
        self.names[label],
        self.names[said],
        *(f"{share:.6f}" for share in shares),
      ]

  def _classes(self) -> Child:
    """Precision, recall, F1 and support of every class that occurs."""
    support, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
    occurs = np.flatnonzero(support + predicted).tolist()
    rows = [
      [
        self.names[label],
        *(
          tag("td", f"{count:,}", data_v=count)
          for count in (support[label], predicted[label])
        ),
        *(
          tag(
            "td",
            f"{share:.1%}",
            class_="share",
            data_v=f"{share:.6f}",
            style=f"--v:{share:.4f}",
          )
          for share in self.scores[:, label]
        ),
      ]
      for label in occurs
    ]
    headings = ("class", "images", "predicted", "precision", "recall", "F1")
    head = [
      tag("th", tag("button", text, class_="sort", type="button"), scope="col")
      for text in headings
    ]
    means = self.scores[:, support > 0].mean(axis=1)
    total = f"{len(self.ids):,}"
    foot = ["mean of classes", total, total, *(f"{x:.1%}" for x in means)]
    absent = len(self.names) - len(occurs)
    return [
      tag(
        "p",
        "Precision: of the images said to be of a class, the share that is. "
        "Recall: of the images of a class, the share that was found. F1 is "
        "their harmonic mean. A heading sorts.",
        f" {absent} classes neither occur nor were predicted." * bool(absent),
        class_="note",
      ),
      table(head, rows, foot, class_="sortable"),
    ]

  def _mistakes(self, most: int) -> Child:
    """The images that the net was surest and wrong about."""
    sure = self.probabilities.max(axis=1)
    wrong = np.flatnonzero(self.said != self.labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    if not len(wrong):
      return tag("p", "None: every image was classified right.")
    return [
      tag(
        "p",
        f"{len(worst)} of {len(wrong)} mistakes, the surest first, with the "
        "probability given to either class. Some may be wrong labels.",
        class_="note",
      ),
      tag("div", [self._figure(row) for row in worst], class_="mistakes"),
    ]

  def _figure(self, row: int) -> Markup:
    """An image with what it is, what was said, and its file."""
    true, said = self.labels[row], self.said[row]
    index, shares = int(self.ids[row]), self.probabilities[row]
    image, small = pictures.thumbnail(self.source, index)
    text = f"{self.names[true]}, taken for {self.names[said]}"
    file = examples.located(self.source, index)
    # The file and its folder: most of a long path is alike.
    short = "/".join(pathlib.PurePath(file).parts[-2:])
    return tag(
      "figure",
      tag("img", src=image, alt=text, class_="small" if small else None),
      tag(
        "figcaption",
        ["is ", tag("b", self.names[true]), f" ({shares[true]:.1%})"],
        tag("br"),
        ["said ", tag("b", self.names[said], class_="said")],
        f" ({shares[said]:.1%})",
        tag("span", short, class_="file", title=file),
      ),
    )

  def _calibration(self) -> Child:
    """Whether 80 % sure is right in 80 % of the cases."""
    found = self._calibrated
    sure = float(self.probabilities.max(axis=1).mean())
    right = float((self.said == self.labels).mean())
    gap = "too sure" if sure > right else "not sure enough"
    if abs(sure - right) < 0.005:
      gap = "about as sure as it should be"
    fitted = statistics.temperature(self.logits, self.labels)
    advice = "No temperature fits best: there are too few mistakes to tell."
    if fitted is not None:
      advice = (
        f"Dividing the logits by a temperature of {fitted:.2f} before the "
        "softmax fits these labels best (least cross-entropy)."
      )
      after = statistics.ece_after(self.logits, self.labels)
      if after is not None:
        advice += (
          " Fitted on one half of the images and judged on the other, that "
          f"makes the error {after:.3f}."
        )
    return [
      tag(
        "p",
        f"In the mean it is {sure:.1%} sure and {right:.1%} right: {gap}. ",
        tag("b", f"Expected calibration error: {found.ece:.3f}."),
      ),
      tag("p", advice),
      tag(
        "div",
        tag(
          "figure",
          charts.reliability(found),
          tag(
            "figcaption",
            "Solid: the share of right answers among images of like "
            "confidence; the dark end of a bar: so much too little "
            "confidence; orange: so much too much; pale: fewer than 10 "
            "images. Below: how many images.",
          ),
          class_="chart",
        ),
        tag(
          "p",
          f"The error (ECE) is the mean over all images of |accuracy - "
          f"confidence| of their bin, in {len(found.count)} bins of equal "
          "width over the probability of the likeliest class (Guo et al. "
          "2017).",
          class_="note",
        ),
        class_="charts",
      ),
    ]


def confusion(counts: np.ndarray, names: Sequence[str]) -> Child:
  """Who is taken for whom: a matrix, and the commonest mistakes."""
  shown, chosen = statistics.gathered(counts, _MATRIX)
  titles = [names[label] for label in chosen]
  about = "Rows: what an image is; columns: what it was said to be; images, "
  about += "coloured by their share of the row."
  if left := len(counts) - len(chosen):
    titles.append(f"{left} others")
    about += (
      f" The {len(chosen)} classes with the most mistakes; the last row and "
      f"column are the other {left} together."
    )
  support = counts.sum(axis=1)
  pairs = [
    [names[true], names[said], count, f"{count / support[true]:.1%}"]
    for true, said, count in statistics.most_confused(counts, _PAIRS)
  ]
  head = ("is", "was said to be", "images", "of the class")
  commonest = [
    tag("h3", "Commonest mistakes"),
    table(head, pairs, class_="pairs"),
  ]
  return [
    tag("p", about, class_="note"),
    tag(
      "div",
      _matrix(shown, titles),
      tag("div", commonest) if len(counts) > 2 and pairs else None,
      class_="beside",
    ),
  ]


def _matrix(counts: np.ndarray, titles: Sequence[str]) -> Markup:
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

  def cell(true: int, said: int) -> Markup:
    count, share = int(counts[true, said]), float(shares[true, said])
    # Among the classes taken together, it may be one taken for another.
    kind = "right" if true == said else "wrong"
    style = f"{kind} deep" if share > 0.55 else kind
    return tag(
      "td",
      f"{count:,}" if count else "·",
      class_=style if count else "none",
      style=f"--v:{share:.3f}" if count else None,
      title=f"{titles[true]} → {titles[said]}: {count} ({share:.1%})",
    )

  places = range(len(titles))
  head = [
    tag("th", tag("div", title, class_="tip"), title=title, scope="col")
    for title in titles
  ]
  return table(
    [tag("th"), *head],
    [
      [titles[row], *(cell(row, column) for column in places)] for row in places
    ],
    class_="matrix large" if len(titles) > _LARGE else "matrix",
  )
