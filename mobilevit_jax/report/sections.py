"""What the page says of the predictions: classes, mistakes, calibration."""

from collections.abc import Sequence
import pathlib

import numpy as np

from mobilevit_jax.report import charts
from mobilevit_jax.report import measure
from mobilevit_jax.report import pictures
from mobilevit_jax.report import statistics
from mobilevit_jax.report.markup import Child
from mobilevit_jax.report.markup import Markup
from mobilevit_jax.report.markup import section
from mobilevit_jax.report.markup import tag

_MATRIX = 26  # rows that fit on a screen
_LARGE = 12  # rows before they get smaller
_PAIRS = 12
_TALL = 30  # rows of a table before it scrolls


def per_class(counts: np.ndarray, names: Sequence[str]) -> Markup:
  """Precision, recall, F1 and support of every class that occurs."""
  found = statistics.per_class(counts)
  occurs = np.flatnonzero(found.support + found.predicted).tolist()
  headings = ("class", "images", "predicted", "precision", "recall", "F1")
  rows = []
  for label in occurs:
    cells = [tag("th", names[label], title=names[label], scope="row")]
    for values in (found.support, found.predicted):
      count = int(values[label])
      cells.append(tag("td", f"{count:,}", data_v=count))
    for values in (found.precision, found.recall, found.f1):
      cells.append(_share(float(values[label])))
    rows.append(tag("tr", cells))
  head = [
    tag("th", tag("button", text, class_="sort", type="button"), scope="col")
    for text in headings
  ]
  present = found.support > 0
  means = [
    tag("td", f"{values[present].mean():.1%}")
    for values in (found.precision, found.recall, found.f1)
  ]
  total = int(counts.sum())
  foot = tag(
    "tr", tag("th", "mean of classes"), *[tag("td", f"{total:,}")] * 2, means
  )
  table = tag(
    "table",
    tag("thead", tag("tr", head)),
    tag("tbody", rows),
    tag("tfoot", foot),
    class_="sortable",
  )
  tall = " tall" if len(rows) > _TALL else ""
  absent = len(names) - len(occurs)
  return section(
    "classes",
    "Classes",
    tag(
      "p",
      "Precision: of the images said to be of a class, the share that is. "
      "Recall: of the images of a class, the share that was found. F1 is their "
      "harmonic mean. A heading sorts.",
      f" {absent} classes neither occur nor were predicted." if absent else "",
      class_="note",
    ),
    tag("div", table, class_=f"scroll{tall}"),
  )


def _share(value: float) -> Markup:
  return tag(
    "td",
    f"{value:.1%}",
    class_="share",
    data_v=f"{value:.6f}",
    style=f"--v:{value:.4f}",
  )


def confusion(counts: np.ndarray, names: Sequence[str]) -> Markup:
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
  pairs = statistics.most_confused(counts, _PAIRS)
  support = counts.sum(axis=1)
  rows = [
    tag(
      "tr",
      tag("td", names[true], class_="word"),
      tag("td", names[said], class_="word"),
      tag("td", count),
      tag("td", f"{count / support[true]:.1%}"),
    )
    for true, said, count in pairs
  ]
  commonest = None
  if len(counts) > 2 and rows:
    head = [
      tag("th", text, style="text-align:left" if place < 2 else None)
      for place, text in enumerate(
        ("is", "was said to be", "images", "of the class")
      )
    ]
    commonest = [
      tag("h3", "Commonest mistakes"),
      tag(
        "div",
        tag("table", tag("thead", tag("tr", head)), tag("tbody", rows)),
        class_="scroll",
      ),
    ]
  return section(
    "confusion",
    "Confusion",
    tag("p", about, class_="note"),
    tag(
      "div",
      tag("div", _matrix(shown, titles), class_="scroll"),
      commonest and tag("div", commonest),
      class_="beside",
    ),
  )


def _matrix(counts: np.ndarray, titles: Sequence[str]) -> Markup:
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  last = len(titles) - 1
  rows = []
  for true, title in enumerate(titles):
    cells = [tag("th", title, title=title, scope="row")]
    for said in range(len(titles)):
      count, share = int(counts[true, said]), float(shares[true, said])
      # Among the classes taken together, it may be one taken for another.
      kind = "right" if true == said else "wrong"
      style = f"{kind} deep" if share > 0.55 else kind
      cells.append(
        tag(
          "td",
          f"{count:,}" if count else "·",
          class_=style if count else "none",
          style=f"--v:{share:.3f}" if count else None,
          title=f"{title} → {titles[said]}: {count} ({share:.1%})",
        )
      )
    rows.append(tag("tr", cells))
  head = [tag("th")] + [
    tag("th", tag("div", title, class_="tip"), title=title, scope="col")
    for title in titles[: last + 1]
  ]
  return tag(
    "table",
    tag("thead", tag("tr", head)),
    tag("tbody", rows),
    class_="matrix large" if len(titles) > _LARGE else "matrix",
  )


def mistakes(
  measured: measure.Measured, probabilities: np.ndarray, most: int
) -> Markup:
  """The images that the net was surest and wrong about."""
  said = probabilities.argmax(axis=1)
  sure = probabilities.max(axis=1)
  wrong = np.flatnonzero(said != measured.labels)
  worst = wrong[np.argsort(-sure[wrong], kind="stable")][:most].tolist()
  names = measured.class_names
  figures = []
  for row in worst:
    true, guess = int(measured.labels[row]), int(said[row])
    file = measured.name(row)
    image, small = pictures.thumbnail(measured.source, int(measured.ids[row]))
    text = f"{names[true]}, taken for {names[guess]}"
    figures.append(
      tag(
        "figure",
        tag("img", src=image, alt=text, class_="small" if small else None),
        tag(
          "figcaption",
          "is ",
          tag("b", names[true]),
          f" ({probabilities[row, true]:.1%})",
          tag("br"),
          "said ",
          tag("b", names[guess], class_="said"),
          f" ({sure[row]:.1%})",
          tag("span", _short(file), class_="file", title=file),
        ),
      )
    )
  if not figures:
    content: Child = tag("p", "None: every image was classified right.")
  else:
    content = [
      tag(
        "p",
        f"{len(worst)} of {len(wrong)} mistakes, the surest first, with the "
        "probability given to either class. Some may be wrong labels.",
        class_="note",
      ),
      tag("div", figures, class_="mistakes"),
    ]
  return section("mistakes", "Worst mistakes", content)


def _short(file: str) -> str:
  """The file and its folder: most of a long path is alike."""
  return "/".join(pathlib.PurePath(file).parts[-2:])


def calibration(
  measured: measure.Measured, probabilities: np.ndarray
) -> Markup:
  """Whether 80 % sure is right in 80 % of the cases."""
  found = statistics.calibration(probabilities, measured.labels)
  sure = float(probabilities.max(axis=1).mean())
  right = float((probabilities.argmax(axis=1) == measured.labels).mean())
  gap = "too sure" if sure > right else "not sure enough"
  if abs(sure - right) < 0.005:
    gap = "about as sure as it should be"
  fitted = statistics.temperature(measured.logits, measured.labels)
  if fitted is None:
    advice = "No temperature fits best: there are too few mistakes to tell."
  else:
    advice = (
      f"Dividing the logits by a temperature of {fitted:.2f} before the "
      "softmax fits these labels best (least cross-entropy)."
    )
    after = statistics.ece_after(measured.logits, measured.labels)
    if after is not None:
      advice += (
        " Fitted on one half of the images and judged on the other, that "
        f"makes the error {after:.3f}."
      )
  return section(
    "calibration",
    "Calibration",
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
          "Solid: the share of right answers among images of like confidence; "
          "the dark end of a bar: so much too little confidence; orange: so "
          "much too much; pale: fewer than 10 images. Below: how many images.",
        ),
        class_="chart",
      ),
      tag(
        "p",
        f"The error (ECE) is the mean over all images of |accuracy - "
        f"confidence| of their bin, in {len(found.count)} bins of equal width "
        "over the probability of the likeliest class (Guo et al. 2017).",
        class_="note",
      ),
      class_="charts",
    ),
  )
