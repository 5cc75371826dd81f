"""Charts as inline SVG; their colours come from the page's style sheet."""

from collections.abc import Callable, Sequence
import dataclasses
import math

import numpy as np

from mobilevit_jax.report import statistics
from mobilevit_jax.report.markup import Markup
from mobilevit_jax.report.markup import tag

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 26, 12, 38
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
    return _LEFT + _share(value, self.x_range) * (_WIDTH - _LEFT - _RIGHT)

  def y(self, value: float) -> float:
    inside = _HEIGHT - _TOP - _BOTTOM
    return _TOP + (1 - _share(value, self.y_range)) * inside


def _share(value: float, limits: tuple[float, float]) -> float:
  return (value - limits[0]) / (limits[1] - limits[0])


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
  xs = [x for line in series for x, _ in line.points]
  ys = [y for line in series for _, y in line.points]
  y_ticks = nice_ticks(min(ys), max(ys))
  frame = _Frame(
    (0.0, max(*xs, 1.0)),
    (min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))),
  )
  parts = _axes(frame, y_ticks, form)
  if marked is not None and 0 <= marked <= frame.x_range[1]:
    x = f"{frame.x(marked):.1f}"
    bottom = _HEIGHT - _BOTTOM
    parts.append(tag("line", class_="mark", x1=x, x2=x, y1=_TOP, y2=bottom))
  for line in series:
    parts += _line(frame, line, form)
  drawing = _svg(title, parts)
  legend = [
    tag("span", tag("i", class_=f"key {line.style}"), line.name)
    for line in series
  ]
  return tag(
    "figure",
    tag("figcaption", tag("b", title), *legend),
    drawing,
    class_="chart",
  )


def _svg(title: str, parts: Sequence[Markup], height: int = _HEIGHT) -> Markup:
  return tag(
    "svg",
    tag("title", title),
    *parts,
    viewBox=f"0 0 {_WIDTH} {height}",
    role="img",
    aria_label=title,
  )


def _axes(
  frame: _Frame, y_ticks: Sequence[float], form: Callable[[float], str]
) -> list[Markup]:
  parts = []
  for value in y_ticks:
    y = f"{frame.y(value):.1f}"
    parts.append(
      tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y)
    )
    parts.append(_text(_LEFT - 6, float(y) + 4, form(value), "end"))
  for value in nice_ticks(*frame.x_range):
    if value <= frame.x_range[1]:
      x = frame.x(value)
      parts.append(_text(x, _HEIGHT - _BOTTOM + 16, f"{value:,.0f}", "middle"))
  parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 4, "step", "end"))
  return parts


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
  return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _line(
  frame: _Frame, line: Series, form: Callable[[float], str]
) -> list[Markup]:
  # Every so manieth, and the last.
  every = -(-len(line.points) // _MOST_POINTS)
  points = [*line.points[:-1:every], line.points[-1]]
  places = [(frame.x(x), frame.y(y)) for x, y in points]
  path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
  parts = [tag("path", class_=f"curve {line.style}", d=f"M{path}")]
  dots = [*zip(points, places, strict=True)]
  if len(dots) > _MOST_DOTS:
    dots = dots[-1:]
  for (step, value), (x, y) in dots:
    title = f"{line.name}: {form(value)} at step {step:,.0f}"
    parts.append(
      tag(
        "circle",
        tag("title", title),
        class_=f"dot {line.style}",
        cx=f"{x:.1f}",
        cy=f"{y:.1f}",
        r=3,
      )
    )
  return parts


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
  """Round numbers from at most `low` to at least `high`, rising."""
  if high <= low:
    spread = abs(low) or 1.0
    low, high = low - spread / 2, high + spread / 2
  rough = (high - low) / (most - 1)
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough) * power
  first, last = math.floor(low / step), math.ceil(high / step)
  return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def reliability(found: statistics.Calibration) -> Markup:
  """Accuracy in each bin of confidence, and below it how many are in it."""
  frame = _Frame((0.0, 1.0), (0.0, 1.0))
  below = 84
  parts = []
  for value in (0.0, 0.25, 0.5, 0.75, 1.0):
    x, y = frame.x(value), frame.y(value)
    parts.append(
      tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y)
    )
    parts.append(_text(_LEFT - 6, y + 4, f"{value:.0%}", "end"))
    parts.append(_text(x, _HEIGHT - _BOTTOM + 16, f"{value:.0%}", "middle"))
  bins = len(found.count)
  width = frame.x(1 / bins) - frame.x(0)
  bottom, most = frame.y(0), max(int(found.count.max()), 1)
  for index in np.flatnonzero(found.count).tolist():
    left = frame.x(index / bins)
    hit, sure = float(found.accuracy[index]), float(found.confidence[index])
    title = (
      f"confidence {index / bins:.0%} to {(index + 1) / bins:.0%}: "
      f"{found.count[index]} images, {hit:.1%} right, "
      f"{sure:.1%} confident in the mean"
    )
    few = " few" if found.count[index] < _FEW else ""
    tall = bottom - frame.y(hit)
    parts.append(_bar(left, frame.y(hit), width, tall, f"hit{few}", title))
    top, end = sorted((frame.y(hit), frame.y(sure)))
    style = f"gap over{few}" if sure > hit else f"gap{few}"
    parts.append(_bar(left, top, width, end - top, style, title))
    height = (below - 24) * int(found.count[index]) / most
    floor = _HEIGHT + below - 8
    parts.append(_bar(left, floor - height, width, height, "many", title))
  parts.append(
    tag(
      "line",
      class_="ideal",
      x1=frame.x(0),
      y1=frame.y(0),
      x2=frame.x(1),
      y2=frame.y(1),
    )
  )
  parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 4, "confidence", "end"))
  parts.append(_text(_LEFT, _HEIGHT + 10, f"images (at most {most})", "start"))
  title = "Accuracy by confidence"
  return _svg(title, parts, _HEIGHT + below)


def _bar(
  x: float, y: float, width: float, height: float, style: str, title: str
) -> Markup:
  return tag(
    "rect",
    tag("title", title),
    class_=style,
    x=f"{x + 0.5:.1f}",
    y=f"{y:.1f}",
    width=f"{width - 1:.1f}",
    height=f"{height:.1f}",
  )
