"""What MkDocs can't do by itself: pages from elsewhere, and generated parts.

A page asks for a part by a line of its own, `<!-- generate: NAME WORDS -->`,
which GitHub does not show; `generate/parts.py` makes it from the code.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from docs.generate import parts

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# Files outside docs/ that are pages too, where they lie for GitHub, and what
# they are called in the site.
_ELSEWHERE = {
  "launch/README.md": "launch.md",
  "CONTRIBUTING.md": "contributing.md",
  "CHANGELOG.md": "changelog.md",
  "LICENSE": "license.txt",
}
_PART = re.compile(r"^<!-- generate: (.+) -->$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)(?=[)#])")
# What a browser would fetch by itself when the page is opened.
_FETCHED = re.compile(
  r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//[^>]*>"
  r"|<link[^>]+rel=\"?(?:stylesheet|preconnect|icon)[^>]+href=\"?(?:https?:)?//"
  r"[^>]*>"
)


def on_files(files: Any, config: Any) -> Any:
  """Adds the pages from elsewhere."""
  for source, uri in _ELSEWHERE.items():
    path = str(_ROOT / source)
    files.append(File.generated(config, uri, abs_src_path=path))
  return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
  """Turns links between files of the repository to links between pages."""
  uri = page.file.src_uri
  sources = {site: source for source, site in _ELSEWHERE.items()}
  folder = posixpath.dirname(sources.get(uri, f"docs/{uri}"))

  def turn(match: re.Match[str]) -> str:
    source = posixpath.normpath(posixpath.join(folder, match[0]))
    site = _ELSEWHERE.get(source, source.removeprefix("docs/"))
    if site == source:  # not a page: left for MkDocs to complain about
      return match[0]
    return posixpath.relpath(site, posixpath.dirname(uri) or ".")

  def make(match: re.Match[str]) -> str:
    try:
      return parts.make(match[1])
    except ValueError as error:
      raise PluginError(f"{uri}: {match[0]}: {error}") from error

  return _PART.sub(make, _LINK.sub(turn, markdown))


def on_post_page(output: str, page: Any, **_: Any) -> str:
  """Refuses a page that would fetch something from another server."""
  if found := _FETCHED.search(output):
    raise PluginError(f"{page.file.src_uri} fetches from elsewhere: {found[0]}")
  return output
