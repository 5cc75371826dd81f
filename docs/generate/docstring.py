"""Module docstrings as Markdown."""

import inspect
import re
from typing import Any


def markdown(module: Any) -> str:
  """A module's docstring, its commands as blocks of code."""
  text = inspect.cleandoc(module.__doc__ or "")
  # Python has joined the lines that ended in a backslash.
  text = re.sub(r"(?<=\S) {3,}(?=--)", " \\\n    ", text)
  # Two spaces set a command apart here, four do in Markdown.
  return text.replace("\n  ", "\n      ")
