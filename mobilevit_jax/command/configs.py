"""Lists the configurations that `mobilevit train --config=NAME` takes."""

import argparse
import ast
from collections.abc import Sequence
import sys

from mobilevit_jax.config import config_names
from mobilevit_jax.config import shipped_configs


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog="mobilevit configs",
    description=__doc__,
    epilog="A copy of a file in any folder works too: --config=FILE.py.",
  )
  parser.add_argument("name", nargs="?", help="print what it says of itself")
  args = parser.parse_args(argv)
  names = config_names()
  if args.name is None:
    for name in names:
      about = _about(name).partition("\n")[0]
      print(f"{name:<{max(map(len, names))}}  {about}")
    print(f"\nin {shipped_configs()}; mobilevit configs NAME says more")
    return 0
  if args.name not in names:
    parser.error(f"no configuration {args.name!r}, only {', '.join(names)}")
  print(_about(args.name))
  return 0


def _about(name: str) -> str:
  """The docstring of a configuration, which is not run for it."""
  # Parsed, not imported: a configuration is a program, which may need packages
  # that a list of names should not.
  text = (shipped_configs() / f"{name}.py").read_text()
  return ast.get_docstring(ast.parse(text)) or ""


if __name__ == "__main__":
  sys.exit(main())
