"""Pictures in SVG, coloured by the site's style sheet for light and dark.

Written out by hand, so that the same drawing gives the same bytes with any
version of anything. Classes begin with `fig-`; `docs/assets/site.css` has them.
"""

from collections.abc import Iterable
import html

Points = Iterable[tuple[float, float]]


class Drawing:
  """Shapes on a canvas; coordinates are pixels from the top left."""

  def __init__(self, width: int, height: int, label: str):
    """An empty canvas; `label` says what a reader who can't see it misses."""
    self._size = (width, height)
    self._label = label
    self._shapes: list[str] = []

  def rect(
    self,
    x: float,
    y: float,
    width: float,
    height: float,
    kind: str = "box",
  ) -> None:
    """A rectangle of class `fig-KIND`."""
    self._shapes.append(
      f'<rect class="fig-{kind}" x="{x:g}" y="{y:g}" width="{width:g}" '
      f'height="{height:g}"/>'
    )

  def circle(self, x: float, y: float, radius: float, kind: str) -> None:
    """A disc of class `fig-KIND` about a centre."""
    self._shapes.append(
      f'<circle class="fig-{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'
    )

  def text(
    self,
    x: float,
    y: float,
    words: str,
    kind: str = "text",
    anchor: str = "middle",
  ) -> None:
    """One line of text on the base line `y`; anchor: start, middle or end."""
    self._shapes.append(
      f'<text class="fig-{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
      f"{html.escape(words)}</text>"
    )

  def line(self, points: Points, kind: str = "line") -> None:
    """A line through all points."""
    path = " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)
    self._shapes.append(f'<polyline class="fig-{kind}" points="{path}"/>')

  def arrow(self, points: Points) -> None:
    """A line whose last part goes straight down, with a head at its end."""
    places = [*points]
    x, y = places[-1]
    self.line([*places[:-1], (x, y - 6)])
    head = f"{x - 4:g},{y - 7:g} {x + 4:g},{y - 7:g} {x:g},{y:g}"
    self._shapes.append(f'<polygon class="fig-head" points="{head}"/>')

  def markup(self) -> str:
    """The picture as one block of HTML, to stand in a Markdown page."""
    width, height = self._size
    return "\n".join(
      [
        '<figure class="fig">',
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{html.escape(self._label)}" '
        'xmlns="http://www.w3.org/2000/svg">',
        *self._shapes,
        "</svg>",
        "</figure>",
      ]
    )
