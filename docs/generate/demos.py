"""The site's demos: pages that run nets that were trained to teach.

`make demo` builds them into the site, beside what MkDocs has made.
"""

import dataclasses
import pathlib
import sys

from mobilevit_jax import files
from mobilevit_jax.data import sources
from mobilevit_jax.demo import folder
from mobilevit_jax.weights import teaching


@dataclasses.dataclass(frozen=True)
class Demo:
  """One page, of the weights `teaching:NAME`.

  Attributes:
    title: of the page.
    data: a key of `data.sources.SOURCES`, whose images are the samples.
    split: of that.
  """

  title: str
  data: str
  split: str


# By the weights' name, which is the page's folder in site/demo too.
DEMOS = {"digits": Demo("Handwritten digits", "digits", "test")}


def there() -> dict[str, Demo]:
  """Those whose weights are beside their table."""
  return {
    name: demo
    for name, demo in DEMOS.items()
    if teaching.find(teaching.PREFIX + name)[0].exists()
  }


def links() -> str:
  """A list of them, for docs/demo.md, whose folder is demo/ beside it."""
  items = [
    f'- <a href="demo/{name}/index.html">{demo.title}</a>'
    for name, demo in there().items()
  ]
  return "\n".join(items) or "This site has none yet."


def build(into: pathlib.Path) -> None:
  """Writes the folders, in the place of old ones."""
  for name, demo in there().items():
    source = sources.make_source(demo.data, demo.split, data_dir=None)
    with files.whole(into / name, force=True) as part:
      part.mkdir()
      lines = folder.write(
        teaching.PREFIX + name,
        pathlib.Path(part),
        images=source,
        title=demo.title,
      )
    print(f"{into / name}:", *lines)


if __name__ == "__main__":
  build(pathlib.Path(sys.argv[1]))
