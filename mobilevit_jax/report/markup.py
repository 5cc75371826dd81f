"""HTML and SVG from Python, with everything that is text escaped."""

from collections.abc import Iterable
import html

# Elements without an end.
_VOID = frozenset({"br", "circle", "img", "line", "meta", "path", "rect"})


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


def section(name: str, title: str, *children: Child) -> Markup:
  """A part of the page that the navigation leads to."""
  return tag("section", tag("h2", title), *children, id=name)
