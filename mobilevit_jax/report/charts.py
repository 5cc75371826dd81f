"""Charts as inline SVG; their colours come from the page's style sheet."""

from collections.abc import Callable, Sequence
import dataclasses

from matplotlib import ticker
import numpy as np

from mobilevit_jax.report import statistics
from mobilevit_jax.report.markup import Markup
from mobilevit_jax.report.markup import tag

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 454, 12, 232  # sides of the frame
_BELOW = 84  # height under the frame of `reliability`
_MOST_POINTS = 400
_MOST_DOTS = 60
_FEW = 10  # images in a bin


@dataclasses.dataclass(frozen=True)
class Series:
  """A line: its name, its class in the style sheet, its (x, y) points."""

  name: str
  style: str
  points: Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class _Frame:
  """From values to places in the drawing."""

  x_range: tuple[float, float]
  y_range: tuple[float, float]

  def x(self, value: float) -> float:
    return float(np.interp(value, self.x_range, (_LEFT, _RIGHT)))

  def y(self, value: float) -> float:
    return float(np.interp(value, self.y_range, (_BOTTOM, _TOP)))


def line_chart(
  title: str,
  series: Sequence[Series],
  *,
  form: Callable[[float], str],
  marked: float | None = None,
) -> Markup | None:
  """Lines over steps.

  Args:
    title: what it shows.
    series: the lines; those without points are left out.
    form: writes a value.
    marked: a step to mark, of the weights that the page is about.

  Returns:
    A figure, or None where there is nothing to draw.
  """
  series = [line for line in series if line.points]
  if not series:
    return None
  xs, ys = zip(
    *(point for line in series for point in line.points), strict=True
  )
  last, y_ticks = max(*xs, 1.0), nice_ticks(min(ys), max(ys))
  frame = _Frame((0.0, last), (y_ticks[0], y_ticks[-1]))
  x_ticks = [x for x in nice_ticks(0.0, last) if x <= last]
  parts = _axes(frame, x_ticks, y_ticks, "{:,.0f}".format, form, "step")
  if marked is not None and 0 <= marked <= last:
    parts.append(_line("mark", frame.x(marked), _TOP, frame.x(marked), _BOTTOM))
  for line in series:
    parts += _curve(frame, line, form)
  legend = [
    tag("span", tag("i", class_=f"key {line.style}"), line.name)
    for line in series
  ]
  caption = tag("figcaption", tag("b", title), *legend)
  return tag("figure", caption, _svg(title, parts, _HEIGHT), class_="chart")


def _svg(title: str, parts: Sequence[Markup], height: int) -> Markup:
  box = f"0 0 {_WIDTH} {height}"
  content = [tag("title", title), *parts]
  return tag("svg", content, viewBox=box, role="img", aria_label=title)


def _axes(
  frame: _Frame,
  x_ticks: Sequence[float],
  y_ticks: Sequence[float],
  x_form: Callable[[float], str],
  y_form: Callable[[float], str],
  name: str,
) -> list[Markup]:
  parts = [_text(_RIGHT, _HEIGHT - 4, name, "end")]
  for value in y_ticks:
    y = frame.y(value)
    parts.append(_line("grid", _LEFT, y, _RIGHT, y))
    parts.append(_text(_LEFT - 6, y + 4, y_form(value), "end"))
  for value in x_ticks:
    parts.append(_text(frame.x(value), _BOTTOM + 16, x_form(value), "middle"))
  return parts


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
  ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
  return tag("line", class_=style, **{k: f"{v:.1f}" for k, v in ends.items()})


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
  return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _curve(
  frame: _Frame, line: Series, form: Callable[[float], str]
) -> list[Markup]:
  # Every so manieth, and the last.
  every = -(-len(line.points) // _MOST_POINTS)
  points = [*line.points[:-1:every], line.points[-1]]
  places = [(f"{frame.x(x):.1f}", f"{frame.y(y):.1f}") for x, y in points]
  path = "L".join(map(" ".join, places))
  parts = [tag("path", class_=f"curve {line.style}", d=f"M{path}")]
  dots = [*zip(points, places, strict=True)]
  for (step, value), (x, y) in dots[-1:] if len(dots) > _MOST_DOTS else dots:
    title = f"{line.name}: {form(value)} at step {step:,.0f}"
    style = f"dot {line.style}"
    parts.append(
      tag("circle", tag("title", title), class_=style, cx=x, cy=y, r=3)
    )
  return parts


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
  """Round numbers from at most `low` to at least `high`, rising."""
  if high <= low:
    spread = abs(low) or 1.0
    low, high = low - spread / 2, high + spread / 2
  locator = ticker.MaxNLocator(most - 1, steps=[1, 2, 2.5, 5, 10])
  return [float(f"{tick:.12g}") for tick in locator.tick_values(low, high)]


def reliability(found: statistics.Calibration) -> Markup:
  """Accuracy in each bin of confidence, and below it how many are in it."""
  frame, quarters = _Frame((0.0, 1.0), (0.0, 1.0)), (0.0, 0.25, 0.5, 0.75, 1.0)
  percent = "{:.0%}".format
  parts = _axes(frame, quarters, quarters, percent, percent, "confidence")
  bins, most = len(found.count), int(found.count.max())
  width, floor = frame.x(1 / bins) - frame.x(0), _HEIGHT + _BELOW - 8
  for index in np.flatnonzero(found.count).tolist():
    left, count = frame.x(index / bins), int(found.count[index])
    hit, sure = float(found.accuracy[index]), float(found.confidence[index])
    title = (
      f"confidence {index / bins:.0%} to {(index + 1) / bins:.0%}: "
      f"{count} images, {hit:.1%} right, {sure:.1%} confident in the mean"
    )
    few = " few" * (count < _FEW)
    top, end = sorted((frame.y(hit), frame.y(sure)))
    for style, high, low in (
      (f"hit{few}", frame.y(hit), _BOTTOM),
      (f"gap{' over' * (sure > hit)}{few}", top, end),
      ("many", floor - (_BELOW - 24) * count / most, floor),
    ):
      place = {"x": left + 0.5, "y": high, "width": width - 1}
      place |= {"height": low - high}
      parts.append(
        tag(
          "rect",
          tag("title", title),
          class_=style,
          **{k: f"{v:.1f}" for k, v in place.items()},
        )
      )
  parts += [
    _line("ideal", _LEFT, _BOTTOM, _RIGHT, _TOP),
    _text(_LEFT, _HEIGHT + 10, f"images (at most {most})", "start"),
  ]
  return _svg("Accuracy by confidence", parts, _HEIGHT + _BELOW)
