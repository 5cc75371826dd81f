"""HTML and SVG from Python, with everything that is text escaped."""

from collections.abc import Iterable, Sequence
import html

# Elements without an end.
_VOID = frozenset({"br", "circle", "img", "line", "meta", "path", "rect"})
_TALL = 30  # rows of a table before it scrolls


class Markup(str):
  """Text that is markup already."""


Child = str | int | float | None | Iterable["Child"]


def tag(element: str, /, *children: Child, **attributes: object) -> Markup:
  """An element.

  Args:
    element: such as `"td"`.
    *children: `Markup` stays as it is, other text is escaped, None is left
      out, and lists are taken apart.
    **attributes: `class_` is `class`, `font_size` is `font-size`; values are
      escaped. None and False leave the attribute out, True gives it no value.
  """
  parts = [f"<{element}"]
  for key, value in attributes.items():
    if value is None or value is False:
      continue
    key = key.rstrip("_").replace("_", "-")
    parts.append(f" {key}")
    if value is not True:
      parts.append(f'="{html.escape(str(value))}"')
  if element in _VOID and not children:
    return Markup("".join([*parts, "/>"]))  # SVG wants the slash
  return Markup("".join([*parts, ">", join(children), f"</{element}>"]))


def join(children: Child) -> Markup:
  """The children of an element, one after the other."""
  if children is None:
    return Markup()
  if isinstance(children, Markup):
    return children
  if isinstance(children, str | int | float):
    return Markup(html.escape(str(children)))
  return Markup("".join(join(child) for child in children))


def table(
  head: Sequence[Child],
  rows: Sequence[Sequence[Child]],
  foot: Sequence[Child] = (),
  **attributes: object,
) -> Markup:
  """A table that scrolls in a box of its own.

  Args:
    head: the headings of the columns.
    rows: their cells; the first of a row is its heading. `Markup` is a whole
      cell, anything else becomes the content of one.
    foot: cells of a last row.
    **attributes: of the table, as in `tag`.
  """
  parts = [("thead", "th", [head]), ("tbody", "td", rows)]
  parts += [("tfoot", "td", [foot])] * bool(foot)
  content = [
    tag(part, [_row(cells, kind) for cells in lines])
    for part, kind, lines in parts
  ]
  tall = " tall" if len(rows) > _TALL else ""
  return tag("div", tag("table", content, **attributes), class_=f"scroll{tall}")


def _row(cells: Sequence[Child], kind: str) -> Markup:
  first, *rest = cells
  if not isinstance(first, Markup):
    about = {"title": first, "scope": "row"} if kind == "td" else {}
    first = tag("th", first, **about)
  others = [x if isinstance(x, Markup) else tag(kind, x) for x in rest]
  return tag("tr", first, others)
