"""What the report says of a classifier, against plain loops in numpy."""

import re
import types
from xml.etree import ElementTree

import numpy as np
import pytest

from mobilevit_jax.data.sources import digits
from mobilevit_jax.report import classify
from mobilevit_jax.report import confusion
from mobilevit_jax.report import markup


def _predictions(logits, labels, k, whole=None, most=24):
  """Of images `len(logits)` out of `whole`, which come in two batches."""
  n = len(labels)
  names = tuple(f"kind {index}" for index in range(k))
  images = np.zeros((whole or n, 4, 4, 3), np.uint8)
  source = digits.ArraySource("drawn", images, np.zeros(len(images)), names)
  order = np.argsort(-logits, axis=1, kind="stable")
  columns = {
    "ids": np.arange(n),
    "labels": labels,
    "rank": (order == labels[:, None]).argmax(axis=1),
    "logits": logits.astype(np.float32),
    "sizes": np.full((n, 2), 4),
  }
  batches = (slice(0, n // 2), slice(n // 2, n))
  return classify.Predictions(
    types.SimpleNamespace(
      setup=types.SimpleNamespace(source=source),
      class_names=names,
      rows=lambda: iter(
        [{k: v[part] for k, v in columns.items()} for part in batches]
      ),
    ),
    most,
  )


def _sections(found):
  """The text of each section, by its title."""
  return {
    title: markup.macro("classify", title.split()[-1].lower(), content)
    for title, content in found.sections().items()
  }


def _guesses(seed, n=300, k=7):
  """Logits that are right more often than not; class k - 1 never occurs."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, k - 1, n)
  logits = rng.normal(size=(n, k)) * 3
  logits[np.arange(n), labels] += 3
  return logits, labels


@pytest.mark.parametrize("seed", range(3))
def test_confusion_and_scores_are_those_of_a_plain_loop(seed):
  logits, labels = _guesses(seed)
  found = _predictions(logits, labels, 7)
  said = [int(np.argmax(row)) for row in logits]
  counts = np.zeros((7, 7), int)
  for true, guess in zip(labels, said, strict=True):
    counts[true, guess] += 1
  np.testing.assert_array_equal(found.counts, counts)
  np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
  for label in range(7):
    right, is_, was_said = counts[label, label], 0, 0
    for true, guess in zip(labels, said, strict=True):
      is_, was_said = is_ + (true == label), was_said + (guess == label)
    precision = right / was_said if was_said else 0
    recall = right / is_ if is_ else 0
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0
    np.testing.assert_allclose(found.scores[:, label], (precision, recall, f1))


def test_cards_and_lead_count_what_was_classified_right():
  logits, labels = _guesses(4)
  found = _predictions(logits, labels, 7, whole=302)
  cards = {name: value for name, value, _ in found.cards()}
  order = np.argsort(-logits, axis=1)
  top1 = (order[:, 0] == labels).mean()
  assert cards["top-1"] == f"{top1:.1%}"
  top5 = (order[:, :5] == labels[:, None]).any(axis=1).mean()
  assert cards["top-5"] == f"{top5:.1%}"
  recalls = [(order[labels == k, 0] == k).mean() for k in range(6)]
  assert cards["mean of classes"] == f"{np.mean(recalls):.1%}"
  assert cards["guessing"] == f"{np.bincount(labels).max() / 300:.1%}"
  number, text = found.lead()
  assert number == f"{top1:.1%}"
  assert text.startswith(
    "of 300 images in 6 classes (2 broken ones were left out) are classified "
    "right"
  )


@pytest.mark.parametrize("right", [0.14, 0.2, 0.5])
def test_what_is_no_better_than_guessing_is_called_so(right):
  labels = np.arange(200) % 5  # always saying one gives 20.0%
  logits = (
    np.eye(5)[(labels + (np.arange(200) >= round(200 * right))) % 5] * 0.01
  )
  found = _predictions(logits, labels, 5)
  verdict = "; no better than guessing: always saying kind 0 gives 20.0%)"
  guessed = right < 0.5
  assert found.lead()[0] == f"{right:.1%}"
  assert found.lead()[1].endswith(verdict) == guessed
  calibration = _sections(found)["Calibration"]
  assert ("no better than guessing, however sure" in calibration) == guessed


def test_few_classes_have_no_top_5():
  found = _predictions(*_guesses(5, k=5), 5)
  assert "top-5" not in [name for name, *_ in found.cards()]


def test_no_image_is_an_error():
  with pytest.raises(ValueError, match="all 9 images of drawn are broken"):
    _predictions(np.zeros((0, 3)), np.zeros(0, int), 3, whole=9)


def test_no_mistake_is_said():
  found = _predictions(np.eye(3) * 4, np.arange(3), 3)
  parts = _sections(found)
  assert "every image was classified right" in parts["Worst mistakes"]
  assert "No temperature fits best" in parts["Calibration"]
  assert "Commonest" not in parts["Confusion"]


def test_lines_tell_the_probabilities_of_both_classes():
  logits, labels = _guesses(6, n=8)
  head, *lines = _predictions(logits, labels, 7).lines()
  assert [*head] == ["name", "label", "prediction", "probability", "of_label"]
  for number, line in enumerate(lines):
    shares = np.exp(logits[number]) / np.exp(logits[number]).sum()
    assert line[1] == f"kind {labels[number]}"
    assert line[2] == f"kind {shares.argmax()}"
    assert float(line[3]) == pytest.approx(shares.max(), abs=1e-6)
    assert float(line[4]) == pytest.approx(shares[labels[number]], abs=1e-6)
  assert len(lines) == 8


def test_the_surest_mistakes_come_first():
  logits, labels = _guesses(7)
  text = _sections(_predictions(logits, labels, 7, most=4))["Worst mistakes"]
  shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  wrong = shares.argmax(axis=1) != labels
  surest = np.sort(shares.max(axis=1)[wrong])[::-1][:4]
  shown = re.findall(r"said <b [^>]*>[^<]*</b> \(([\d.]+%)\)", text)
  assert shown == [f"{share:.1%}" for share in surest]
  assert f"4 of {wrong.sum()} mistakes" in text


@pytest.mark.parametrize("k", [2, 26, 27, 400])
def test_confusion_of_any_number_of_classes_fits_a_screen(k):
  counts = np.eye(k, dtype=int) * 20
  counts[1, 0] = 7
  names = [f"class <{index}>" for index in range(k)]
  text = markup.macro("parts", "confusion", confusion.view(counts, names))
  root = ElementTree.fromstring(f"<section>{text.replace('·', '.')}</section>")
  matrix = next(
    t for t in root.iter("table") if t.get("class", "").startswith("matrix")
  )
  rows = [*matrix.iter("tr")][1:]
  assert len(rows) == min(k, 26)
  cells = [cell.text for row in rows for cell in row.iter("td")]
  shown = [int(cell.replace(",", "")) for cell in cells if cell != "."]
  assert sum(shown) == counts.sum()
  assert "class &lt;1&gt; → class &lt;0&gt;: 7 (25.9%)" in text
  assert (f"{k - 25} others" in text) == (k > 26)
