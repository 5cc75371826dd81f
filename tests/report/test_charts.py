import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mobilevit_jax.report import charts
from mobilevit_jax.report import markup
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


def test_a_table_scrolls_where_it_is_tall_and_keeps_whole_cells():
  cell = markup.tag("td", "x", class_="own")
  text = markup.table(("a", "b"), [["<1>", cell]], ["sum", 2], class_="c")
  root = ElementTree.fromstring(text)
  assert root.get("class") == "scroll"
  kinds = [[cell.tag for cell in row] for row in root.iter("tr")]
  assert kinds == [["th", "th"], ["th", "td"], ["th", "td"]]
  assert [cell.text for cell in root.iter("td")] == ["x", "2"]
  assert root.find("table/tbody/tr/th").get("title") == "<1>"
  tall = markup.table(("a",), [[number] for number in range(31)])
  root = ElementTree.fromstring(tall)
  assert root.get("class") == "scroll tall" and root.find("table/tfoot") is None


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
