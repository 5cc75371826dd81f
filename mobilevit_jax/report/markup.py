"""The page's templates, which escape all that is text by themselves."""

import functools
from typing import Any

import jinja2


@functools.cache
def environment() -> jinja2.Environment:
  """Where the templates are, and how they write numbers."""
  made = jinja2.Environment(
    loader=jinja2.PackageLoader("mobilevit_jax.report", ""),
    # Names of classes and files come from whoever made the data.
    autoescape=True,
    # A misspelt name is an error, not an empty place on the page.
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  made.filters["percent"] = percent
  made.filters["count"] = "{:,}".format
  return made


def percent(share: float, digits: int = 1) -> str:
  """A share as a percentage, such as "81.3%"."""
  return f"{100 * share:.{digits}f}%"


def macro(template: str, name: str, *arguments: Any) -> str:
  """What one macro of a template writes.

  Args:
    template: such as `"parts"` for `parts.html.j2`.
    name: of the macro.
    *arguments: of the macro.
  """
  module = environment().get_template(f"{template}.html.j2").module
  return getattr(module, name)(*arguments)
