"""Figures of accuracy against size and latency, from the comparison's tables.

The page is the only place of the numbers: a figure is drawn from its tables,
and so shows what they say and nothing else.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import math
import pathlib

from docs.generate import svg

_PAGE = pathlib.Path(__file__).resolve().parents[1] / "comparison.md"
_WIDTH, _HEIGHT = 680, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 664, 34, 410  # sides of the frame
_LETTER = 7.0  # width of a letter of a note, in pixels, about
_RADIUS = 5.0
_OWN = "MobileViT"  # how the names of the nets here begin


@dataclasses.dataclass(frozen=True)
class Point:
  """One net: its name, its place to the right, and top-1 in percent."""

  name: str
  x: float
  top1: float


def table(heading: str, text: str | None = None) -> list[dict[str, str]]:
  """The first table below a heading of the page, a row each.

  Args:
    heading: such as `"At a size"`.
    text: of the page; by default the comparison.

  Raises:
    ValueError: if there is no such heading, or no table below it.
  """
  text = _PAGE.read_text() if text is None else text
  _, found, section = text.partition(f"\n## {heading}\n")
  lines = section.split("\n## ")[0].splitlines()
  rows: list[list[str]] = []
  for line in lines:
    if line.startswith("|"):
      rows.append([cell.strip(" *") for cell in line.strip("|").split("|")])
    elif rows:
      break
  if not found or len(rows) < 3:
    raise ValueError(f"{_PAGE.name} has no table under {heading!r}")
  head, _, *body = rows
  return [dict(zip(head, row, strict=True)) for row in body]


def accuracy_by_size() -> str:
  """Top-1 against millions of parameters."""
  points = [
    Point(_short(row["model"]), float(row["M params"]), _top1(row))
    for row in table("At a size")
  ]
  return _scatter(points, "million parameters", (1, 2, 4, 8))


def accuracy_by_latency() -> str:
  """Top-1 against milliseconds on an iPhone, each by its own authors."""
  points = [
    Point(row["model"], float(row["ms"]), _top1(row))
    for row in table("On a phone")
  ]
  return _scatter(points, "milliseconds on an iPhone", (1, 2, 4, 8))


def _short(name: str) -> str:
  """Without what follows a comma, and with a letter for a size."""
  name = name.split(",")[0]
  return name.replace("-Medium", "-M").replace("Conv-Small", "Conv-S")


def _top1(row: dict[str, str]) -> float:
  return float(row["top-1"])


def _scatter(points: Sequence[Point], x_name: str, ticks: Sequence[int]) -> str:
  """A drawing of named points; the axis to the right is logarithmic."""
  low, high = (
    math.log(pick(ticks[0], *(point.x for point in points)) * margin)
    for pick, margin in ((min, 0.92), (max, 2.0))
  )
  bottom = math.floor(min(point.top1 for point in points) / 2) * 2 - 1
  top = math.ceil(max(point.top1 for point in points) / 2) * 2 + 1

  def place(x: float, top1: float) -> tuple[float, float]:
    across = (math.log(x) - low) / (high - low)
    up = (top1 - bottom) / (top - bottom)
    return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)

  drawing = svg.Drawing(
    _WIDTH, _HEIGHT, f"ImageNet top-1 against {x_name}, a point for each net"
  )
  for top1 in range(math.ceil(bottom / 2) * 2, top + 1, 2):
    _, y = place(ticks[0], top1)
    drawing.line([(_LEFT, y), (_RIGHT, y)], "grid")
    drawing.text(_LEFT - 8, y + 4, f"{top1}", "note", "end")
  for tick in ticks:
    x, _ = place(tick, top)
    drawing.line([(x, _TOP), (x, _BOTTOM)], "grid")
    drawing.text(x, _BOTTOM + 18, f"{tick}", "note")
  drawing.text(_RIGHT, _BOTTOM + 40, x_name, "note", "end")
  drawing.text(_LEFT - 40, 16, "top-1 on ImageNet-1k, %", "note", "start")

  # Points hide no label, and labels hide neither points nor each other.
  spots = [place(point.x, point.top1) for point in points]
  taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
  for point, (x, y) in zip(points, spots, strict=True):
    own = point.name.startswith(_OWN)
    drawing.circle(x, y, _RADIUS, "own" if own else "other")
    at, box = _free(point.name, x, y, taken)
    taken.append(box)
    drawing.text(*at, point.name, "strong" if own else "note", "start")
  return drawing.markup()


def _free(
  name: str, x: float, y: float, taken: Sequence[tuple[float, ...]]
) -> tuple[tuple[float, float], tuple[float, float, float, float]]:
  """Where a point's label goes: the first place around it that is free."""
  boxes = [*_around(len(name) * _LETTER, x, y)]
  inside = [box for box in boxes if box[0] > _LEFT and box[2] < _RIGHT + 12]
  for box in inside:
    if not any(_overlap(box, other) for other in taken):
      break
  else:
    box = inside[0]
  return (box[0], box[3] - 3), box


def _around(
  width: float, x: float, y: float
) -> Iterator[tuple[float, float, float, float]]:
  """Right, left, above and below, then further away."""
  for far in (0, 6, 12, 18, 24, 32, 40):
    yield x + 9, y - 7 - far, x + 9 + width, y + 7 - far
    yield x + 9, y - 7 + far, x + 9 + width, y + 7 + far
    yield x - 9 - width, y - 7 - far, x - 9, y + 7 - far
    yield x - 9 - width, y - 7 + far, x - 9, y + 7 + far
    yield x - width / 2, y - 22 - far, x + width / 2, y - 8 - far
    yield x - width / 2, y + 8 + far, x + width / 2, y + 22 + far


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
  apart = (
    one[2] <= other[0]
    or other[2] <= one[0]
    or one[3] <= other[1]
    or other[3] <= one[1]
  )
  return not apart
