import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mobilevit_jax.report import charts
from mobilevit_jax.report import markup
from mobilevit_jax.report import sections
from mobilevit_jax.report import statistics


@pytest.mark.parametrize(
  ("low", "high"),
  [(0, 1), (0.431, 0.437), (-3, 7), (1e-6, 2e-3), (5, 5), (0, 0), (0, 12345)],
)
def test_ticks_are_round_and_hold_the_range(low, high):
  ticks = charts.nice_ticks(low, high)
  assert ticks[0] <= low and ticks[-1] >= high
  assert 2 <= len(ticks) <= 8
  steps = np.diff(ticks)
  np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
  digits = f"{steps[0]:.6e}".split("e")[0].rstrip("0")
  assert digits in ("1.", "2.", "2.5", "5.")


def test_markup_escapes_all_but_markup():
  cell = markup.tag(
    "td", "<b>", markup.tag("i", "&"), ["x", None, 3], title='"<', hidden=True
  )
  assert cell == '<td title="&quot;&lt;" hidden>&lt;b&gt;<i>&amp;</i>x3</td>'
  assert markup.tag("p", class_=None, data_v=1) == '<p data-v="1"></p>'


def _places(figure, style):
  root = ElementTree.fromstring(figure)
  (curve,) = (
    node for node in root.iter("path") if node.get("class") == f"curve {style}"
  )
  pairs = re.findall(r"([\d.]+) ([\d.]+)", curve.get("d"))
  return np.array(pairs, float), root


def test_a_line_goes_through_its_points():
  points = [(0, 1.0), (50, 3.0), (100, 2.0)]
  figure = charts.line_chart(
    "Loss", [charts.Series("EMA", "ema", points)], form=str
  )
  (x, y), root = _places(figure, "ema")[0].T, _places(figure, "ema")[1]
  assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
  # Higher values are further up, in proportion.
  assert (y[0] - y[1]) == pytest.approx(2 * (y[2] - y[1]), abs=0.2)
  titles = [node.text for node in root.iter("title")]
  assert "EMA: 3.0 at step 50" in titles


def test_long_lines_keep_their_ends_and_are_thinned():
  points = [(step, step % 7) for step in range(10_000)]
  figure = charts.line_chart(
    "Loss", [charts.Series("train", "train", points)], form=str
  )
  places, root = _places(figure, "train")
  assert 200 < len(places) <= 402
  assert len([*root.iter("circle")]) == 1
  assert places[0, 0] < 60 and places[-1, 0] > 450


def test_nothing_to_draw_is_no_chart():
  series = [charts.Series("EMA", "ema", [])]
  assert charts.line_chart("Loss", series, form=str) is None
  one = [charts.Series("EMA", "ema", [(0, 0.5)])]
  assert charts.line_chart("Loss", one, form=str) is not None


def test_reliability_has_bars_as_high_as_the_accuracy():
  probabilities = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 2)
  found = statistics.calibration(probabilities, np.array([0, 0, 1, 0, 1]))
  root = ElementTree.fromstring(charts.reliability(found))
  heights = [
    float(bar.get("height"))
    for bar in root.iter("rect")
    if bar.get("class").startswith("hit")
  ]
  assert heights[1] / heights[0] == pytest.approx((2 / 3) / (1 / 2), rel=0.01)


@pytest.mark.parametrize("k", [2, 26, 27, 400])
def test_confusion_of_any_number_of_classes_fits_a_screen(k):
  counts = np.eye(k, dtype=int) * 20
  counts[1, 0] = 7
  names = [f"class <{index}>" for index in range(k)]
  text = sections.confusion(counts, names)
  root = ElementTree.fromstring(text.replace("·", "."))
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
