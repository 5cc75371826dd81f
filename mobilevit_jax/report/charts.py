"""Charts as shapes of SVG, which `parts.html.j2` writes.

Their colours come from the page's style sheet, which knows light and dark.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses

from matplotlib import ticker
import numpy as np

from mobilevit_jax.report import statistics

# Units of the drawing; the page scales it to its own width.
_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 454, 12, 232  # sides of the frame
_BELOW = 84  # height under the frame of `reliability`
_MOST_POINTS = 400
_MOST_DOTS = 60
_SHORT = 15  # points that are too few for a line to show them
_FEW = 10  # answers in a bin
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Series:
  """A line: its name, its class in the style sheet, its (x, y) points."""

  name: str
  style: str
  points: Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Shape:
  """An element of SVG.

  Attributes:
    element: such as `"line"`.
    attributes: of the element.
    title: what is shown to who points at it; none if empty.
    text: its content.
  """

  element: str
  attributes: Mapping[str, object]
  title: str = ""
  text: str = ""


@dataclasses.dataclass(frozen=True)
class Chart:
  """A drawing.

  Attributes:
    title: what it shows.
    shapes: from back to front.
    legend: name and class of each line.
    height: in pixels.
    width: in pixels.
  """

  title: str
  shapes: Sequence[Shape]
  legend: Sequence[tuple[str, str]] = ()
  height: int = _HEIGHT
  width: int = _WIDTH


@dataclasses.dataclass(frozen=True)
class _Frame:
  """From values to places in the drawing."""

  x_range: tuple[float, float]
  y_range: tuple[float, float]

  def x(self, value: float) -> float:
    # Linear, and clipped at the ends.
    return float(np.interp(value, self.x_range, (_LEFT, _RIGHT)))

  def y(self, value: float) -> float:
    return float(np.interp(value, self.y_range, (_BOTTOM, _TOP)))


def line_chart(
  title: str,
  series: Sequence[Series],
  *,
  form: Callable[[float], str],
  marked: float | None = None,
) -> Chart | None:
  """Lines over steps.

  Args:
    title: what it shows.
    series: the lines; those without points are left out.
    form: writes a value.
    marked: a step to mark, of the weights that the page is about.

  Returns:
    A chart, or None where there is nothing to draw.
  """
  series = [line for line in series if line.points]
  if not series:
    return None
  # All lines share one pair of axes.
  xs, ys = zip(
    *(point for line in series for point in line.points), strict=True
  )
  # The frame goes to round numbers beyond the values, and is never empty.
  last, y_ticks = max(*xs, 1.0), nice_ticks(min(ys), max(ys))
  # From 0: a run's beginning is part of what it shows.
  frame = _Frame((0.0, last), (y_ticks[0], y_ticks[-1]))
  x_ticks = [x for x in nice_ticks(0.0, last) if x <= last]
  steps = "{:,.0f}".format
  parts = _axes(frame, x_ticks, y_ticks, steps, form, "step")
  if marked is not None and 0 <= marked <= last:
    parts.append(_line("mark", frame.x(marked), _TOP, frame.x(marked), _BOTTOM))
  for line in series:
    parts += _curve(frame, line, form, lambda x: f"step {steps(x)}")
  return Chart(title, parts, [(line.name, line.style) for line in series])


def share_chart(
  title: str, series: Sequence[Series], *, x_name: str
) -> Chart | None:
  """Lines whose values on both axes are shares, in a frame from 0 to 1.

  Args:
    title: what it shows.
    series: the lines; those without points are left out.
    x_name: of what is to the right.

  Returns:
    A chart, or None where there is nothing to draw.
  """
  series = [line for line in series if line.points]
  if not series:
    return None
  frame, percent = _Frame((0.0, 1.0), (0.0, 1.0)), "{:.0%}".format
  parts = _axes(frame, _QUARTERS, _QUARTERS, percent, percent, x_name)
  for line in series:
    parts += _curve(
      frame, line, "{:.1%}".format, lambda x: f"{x_name} {percent(x)}"
    )
  return Chart(title, parts, [(line.name, line.style) for line in series])


def _axes(
  frame: _Frame,
  x_ticks: Sequence[float],
  y_ticks: Sequence[float],
  x_form: Callable[[float], str],
  y_form: Callable[[float], str],
  name: str,
) -> list[Shape]:
  # Only horizontal grid lines: values are read off, steps rarely.
  parts = [_text(_RIGHT, _HEIGHT - 4, name, "end")]
  for value in y_ticks:
    y = frame.y(value)
    parts.append(_line("grid", _LEFT, y, _RIGHT, y))
    parts.append(_text(_LEFT - 6, y + 4, y_form(value), "end"))
  for value in x_ticks:
    parts.append(_text(frame.x(value), _BOTTOM + 16, x_form(value), "middle"))
  return parts


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> Shape:
  ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
  places = {name: f"{value:.1f}" for name, value in ends.items()}
  return Shape("line", {"class": style, **places})


def _text(x: float, y: float, text: str, anchor: str) -> Shape:
  place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
  return Shape("text", place, text=text)


def _curve(
  frame: _Frame,
  line: Series,
  form: Callable[[float], str],
  at: Callable[[float], str],
) -> list[Shape]:
  # Every n-th point, and the last one.
  every = -(-len(line.points) // _MOST_POINTS)
  points = [*line.points[:-1:every], line.points[-1]]
  places = [(f"{frame.x(x):.1f}", f"{frame.y(y):.1f}") for x, y in points]
  # An SVG path: M to the first point, L to each of the others.
  path = "L".join(map(" ".join, places))
  style = {"class": f"curve {line.style}"}
  parts = [Shape("path", {**style, "d": f"M{path}"}, line.name)]
  dots = [*zip(points, places, strict=True)]
  # Dots carry the values one can point at; with many points the last one does.
  # The marks of training are there to be pointed at, and seen where they are
  # few: of one point there is no line at all.
  short = " short" * (len(dots) <= _SHORT)
  for (x, value), (cx, cy) in dots[-1:] if len(dots) > _MOST_DOTS else dots:
    place = {"class": f"dot {line.style}{short}", "cx": cx, "cy": cy, "r": 3}
    title = f"{line.name}: {form(value)} at {at(x)}"
    parts.append(Shape("circle", place, title))
  return parts


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
  """Round numbers from at most `low` to at least `high`, rising."""
  # A constant curve has a range of its own around it.
  if high <= low:
    spread = abs(low) or 1.0
    low, high = low - spread / 2, high + spread / 2
  # matplotlib's rule, without drawing by it: pages hold no pictures of it.
  locator = ticker.MaxNLocator(most - 1, steps=[1, 2, 2.5, 5, 10])
  # 0.30000000000000004 would show in the page.
  return [float(f"{tick:.12g}") for tick in locator.tick_values(low, high)]


def reliability(found: statistics.Calibration, unit: str = "images") -> Chart:
  """Accuracy in each bin of confidence, and below it how many are in it.

  Args:
    found: the bins.
    unit: what is counted in them.
  """
  frame = _Frame((0.0, 1.0), (0.0, 1.0))
  percent = "{:.0%}".format
  parts = _axes(frame, _QUARTERS, _QUARTERS, percent, percent, "confidence")
  bins, most = len(found.count), int(found.count.max())
  # Bars hang below the axis, as long as a bin has answers.
  width, floor = frame.x(1 / bins) - frame.x(0), _HEIGHT + _BELOW - 8
  for index in np.flatnonzero(found.count).tolist():
    left, count = frame.x(index / bins), int(found.count[index])
    hit, sure = float(found.accuracy[index]), float(found.confidence[index])
    title = (
      f"confidence {index / bins:.0%} to {(index + 1) / bins:.0%}: "
      f"{count} {unit}, {hit:.1%} right, {sure:.1%} confident on average"
    )
    few = " few" * (count < _FEW)
    # Over its bar the accuracy, and the gap to the confidence, signed by
    # colour.
    top, end = sorted((frame.y(hit), frame.y(sure)))
    for style, high, low in (
      (f"hit{few}", frame.y(hit), _BOTTOM),
      (f"gap{' over' * (sure > hit)}{few}", top, end),
      ("many", floor - (_BELOW - 24) * count / most, floor),
    ):
      place = {"x": left + 0.5, "y": high, "width": width - 1}
      place |= {"height": low - high}
      sides = {name: f"{value:.1f}" for name, value in place.items()}
      parts.append(Shape("rect", {"class": style, **sides}, title))
  parts += [
    _line("ideal", _LEFT, _BOTTOM, _RIGHT, _TOP),
    _text(_LEFT, _HEIGHT + 10, f"{unit} (at most {most:,})", "start"),
  ]
  return Chart("Accuracy by confidence", parts, height=_HEIGHT + _BELOW)
