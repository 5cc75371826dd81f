import re
from xml.etree import ElementTree

import jinja2
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


def test_names_are_escaped_wherever_they_stand():
  name = "<b title='x'>&\""
  rows = [[name, name]]
  text = markup.macro("parts", "table", (name, "b"), rows)
  root = ElementTree.fromstring(text)
  heading = root.find("table/tbody/tr/th")
  assert heading.text == heading.get("title") == name
  assert root.find("table/tbody/tr/td").text == name
  drawn = charts.Chart(name, [charts.Shape("text", {"id": name}, name, name)])
  root = ElementTree.fromstring(markup.macro("parts", "drawing", drawn))
  assert root.get("aria-label") == root.find("text").get("id") == name
  assert [node.text for node in root.iter("title")] == [name, name]
  assert root.find("text/title").tail == name


def test_a_value_that_nobody_gave_is_an_error():
  with pytest.raises(jinja2.UndefinedError, match="shapes"):
    markup.macro("parts", "drawing", {"title": "x", "width": 1, "height": 1})


def test_a_table_scrolls_where_it_is_tall():
  text = markup.macro("parts", "table", ("a", "b"), [["<1>", "x"]], ["sum", 2])
  root = ElementTree.fromstring(text)
  assert root.get("class") == "scroll"
  kinds = [[cell.tag for cell in row] for row in root.iter("tr")]
  assert kinds == [["th", "th"], ["th", "td"], ["th", "td"]]
  assert root.find("table/tbody/tr/th").get("title") == "<1>"
  tall = markup.macro("parts", "table", ("a",), [[x] for x in range(31)])
  root = ElementTree.fromstring(tall)
  assert root.get("class") == "scroll tall" and root.find("table/tfoot") is None


def test_unknown_shares_sort_last_and_are_a_dash():
  cells = [markup.macro("parts", "share", x) for x in (None, -1.0, 0.0, 0.625)]
  found = [ElementTree.fromstring(cell) for cell in cells]
  assert [cell.text for cell in found] == ["-", "-", "0.0%", "62.5%"]
  values = [float(cell.get("data-v")) for cell in found]
  assert values == sorted(values) and values[1] < values[2]


def _places(chart, style):
  root = ElementTree.fromstring(markup.macro("parts", "chart", chart))
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


def test_shares_are_drawn_in_a_frame_from_0_to_1():
  points = [(0.0, 1.0), (0.5, 0.75), (1.0, 0.0)]
  chart = charts.share_chart(
    "AP", [charts.Series("cat", "c0", points)], x_name="recall"
  )
  places, root = _places(chart, "c0")
  lines = [node for node in root.iter("line") if node.get("class") == "grid"]
  edges = sorted({float(node.get("y1")) for node in lines})
  assert places[0, 1] == edges[0] and places[-1, 1] == edges[-1]
  assert places[1, 1] - edges[0] == pytest.approx((edges[-1] - edges[0]) / 4)
  titles = [node.text for node in root.iter("title")]
  assert "cat: 75.0% at recall 50%" in titles
  empty = [charts.Series("cat", "c0", [])]
  assert charts.share_chart("AP", empty, x_name="recall") is None


@pytest.mark.parametrize("count", [1, 15, 16, 100])
def test_few_points_are_seen_as_dots(count):
  points = [(step, 1e-3) for step in range(count)]
  figure = charts.line_chart(
    "rate", [charts.Series("training", "train", points)], form=str
  )
  dots = [shape for shape in figure.shapes if shape.element == "circle"]
  kinds = {shape.attributes["class"] for shape in dots}
  assert kinds == {"dot train short" if count < 16 else "dot train"}
  assert len(dots) == (count if count <= 60 else 1)


def test_nothing_to_draw_is_no_chart():
  series = [charts.Series("EMA", "ema", [])]
  assert charts.line_chart("Loss", series, form=str) is None
  one = [charts.Series("EMA", "ema", [(0, 0.5)])]
  assert charts.line_chart("Loss", one, form=str) is not None


def test_reliability_has_bars_as_high_as_the_accuracy():
  probabilities = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 2)
  found = statistics.calibration(probabilities, np.array([0, 0, 1, 0, 1]))
  root = ElementTree.fromstring(
    markup.macro("parts", "drawing", charts.reliability(found))
  )
  heights = [
    float(bar.get("height"))
    for bar in root.iter("rect")
    if bar.get("class").startswith("hit")
  ]
  assert heights[1] / heights[0] == pytest.approx((2 / 3) / (1 / 2), rel=0.01)
