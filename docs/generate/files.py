"""Figures as files of their own, for pages that the site does not make.

    python -m docs.generate.files

writes them into `docs/assets`; a test finds one that is no longer what the
code gives. GitHub shows a file without the site's style sheet, so each has the
colours that it needs, on white.
"""

import pathlib
import re

from docs.generate import architecture

_ASSETS = pathlib.Path(__file__).resolve().parents[1] / "assets"
# The site's names for colours (see site.css), as they are in its light scheme.
_COLOURS = {
  "--md-default-fg-color--lightest": "#ddd",
  "--md-default-fg-color--light": "#666",
  "--md-default-fg-color": "#222",
  "--md-code-bg-color": "#f5f5f5",
  "--md-code-font-family, monospace": "monospace",
}


def figures() -> dict[str, str]:
  """The content of each file, by its name."""
  return {"block.svg": standalone(architecture.block("mobilevit_s", 4))}


def standalone(markup: str) -> str:
  """A figure of a page as an SVG file: white behind it, and its own style."""
  style = (_ASSETS / "site.css").read_text()
  rules = [line for line in style.splitlines() if line.startswith(".fig")]
  css = "\n".join(rules).replace(".fig ", "").replace("inherit", "sans-serif")
  for name, value in _COLOURS.items():
    css = css.replace(f"var({name})", value)
  drawing = re.search(r"<svg.*</svg>", markup, re.DOTALL)
  if drawing is None:
    raise ValueError("the figure holds no drawing")
  head, body = drawing[0].split(">", 1)
  back = '<rect width="100%" height="100%" fill="#fff"/>'
  return f"{head}>\n<style>{css}</style>\n{back}{body}\n"


if __name__ == "__main__":
  for file, content in figures().items():
    (_ASSETS / file).write_text(content)
