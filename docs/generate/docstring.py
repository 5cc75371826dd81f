"""Module docstrings as Markdown."""

import inspect
import re
from typing import Any


def markdown(module: Any) -> str:
  """A module's docstring, its commands as blocks of code."""
  text = inspect.cleandoc(module.__doc__ or "")
  # Python has joined the lines that ended in a backslash.
  text = re.sub(r"(?<=\S) {3,}(?=--)", " \\\n    ", text)
  # Some set commands apart by two spaces, where Markdown wants four.
  indents = [len(found) for found in re.findall(r"^ +", text, re.MULTILINE)]
  missing = " " * max(0, 4 - min(indents, default=4))
  return re.sub(r"^(?= )", missing, text, flags=re.MULTILINE)
