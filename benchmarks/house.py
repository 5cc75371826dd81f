"""Prints the layout of the code in figures: how much there is, and where.

    python -m benchmarks house --root=ANOTHER_CHECKOUT

Source files are parsed and never imported, so a checkout of any version can be
counted, also one whose requirements are not installed.
"""

import argparse
import ast
import collections
from collections.abc import Collection, Iterator, Mapping
import pathlib
import re
import tokenize

PACKAGE = "mobilevit_jax"
Arrows = Mapping[str, set[str]]
# What trains and evaluates any task, so nothing in it should know of classes;
# then what run/ holds, from before it was a folder.
_LOOP = (
  r"(train|evaluate|steps|experiment|data\.(pipeline|loading)|run\..*|"
  r"best|check(point|sums)|distributed|sharding|stop|timing|window|writer)$"
)
# As a part of a name too: `best_top1` knows as much of classes as `top1`.
_WORD = re.compile(r"(?<![a-zA-Z0-9])(?:ema_)?(?:top1|labels)(?![a-zA-Z0-9])")
# What should be there once, as patterns of "module: a line of its code".
_ONCE = {
  "functions named unfold": r".*: *def unfold\(",
  # The rank of a class: (scores > own) | (scores == own) & before.
  "top-k with ties": r".*\(.* > .*\) \| \(.* == .*\) &",
  # A path's `replace` has one argument, that of a string two.
  "files put in the place of another": r".*(os\.replace|\.replace\([\w.]+\)$)",
  # Not the train step and its state, a figure, a file to export, a speed.
  "jitted forward passes over a set": (
    r"(?!train|compiling|experiment|visualize|.*stablehlo|bench).*jax\.jit\b"
  ),
}


def modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Source files of package and benchmarks, by the names used in the table.

  "data.plan" is mobilevit_jax/data/plan.py, "data" its __init__.py, "" that of
  the package; those of benchmarks/ begin with "benchmarks".
  """
  found = {}
  for folder in (PACKAGE, "benchmarks"):
    for path in sorted((root / folder).rglob("*.py")):
      parts = path.relative_to(root).with_suffix("").parts
      parts = parts[folder == PACKAGE : -1 if path.stem == "__init__" else None]
      found[".".join(parts)] = path
  return found


def imports(tree: ast.Module) -> Iterator[str]:
  """Yields "a.b" for `import a.b` and "a.b.c" for `from a.b import c`."""
  for node in ast.walk(tree):
    # By text, so that a checkout of another version can be counted.
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = "." * node.level + (node.module or "")
      yield from (f"{base}.{alias.name}" for alias in node.names)


def arrows(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
  """The modules among `trees` that each of them imports."""
  found: dict[str, set[str]] = {module: set() for module in trees}
  for module, tree in trees.items():
    for name in imports(tree):
      head, _, inner = name.partition(".")
      # The version is there before any module is, so it is no arrow.
      if head == PACKAGE and inner != "__version__":
        name = inner
      elif head != "benchmarks":
        continue
      # The last part is either a module or something defined in one.
      found[module].add(name if name in trees else name.rpartition(".")[0])
  return found


def row(module: str, table: Collection[str]) -> str | None:
  """The row of a module: its own, or that of the closest folder around it."""
  while module not in table and "." in module:
    module = module.rpartition(".")[0]
  return module if module in table else None


def forbidden(graph: Arrows, table: Arrows) -> list[str]:
  """Arrows between modules whose rows the table does not join."""
  found = []
  for module, others in graph.items():
    here = row(module, table)
    allowed = {here, *table.get(here or "", ())}
    for other in sorted(others if "*" not in allowed else ()):
      if row(other, table) not in allowed:
        found.append(f"{module or PACKAGE} -> {other or PACKAGE}")
  return found


def reach(start: str, graph: Arrows) -> set[str]:
  # Breadth doesn't matter: only what can be reached.
  """All that arrows lead to; `start` is in it only if it is on a circle."""
  seen, todo = set(), [start]
  while todo:
    new = graph.get(todo.pop(), set()) - seen
    seen |= new
    todo += new
  return seen


def table_of(root: pathlib.Path) -> dict[str, set[str]]:
  """The table of arrows that a checkout holds itself to, or an empty one."""
  pattern = re.compile(r"^ALLOWED.*? = (\{.*?^\})", re.MULTILINE | re.DOTALL)
  for path in (root / "tests").glob("*import*.py"):
    if found := pattern.search(path.read_text()):
      return ast.literal_eval(found[1])
  return {}


def count(text: str) -> collections.Counter[str]:
  """Lines of a source file by what they are, and how often it says `_WORD`."""
  lines = text.splitlines()
  counts = collections.Counter(lines=len(lines))
  counts["filled"] = counts["code"] = sum(bool(line.strip()) for line in lines)
  source = iter(text.splitlines(keepends=True))
  for token in tokenize.generate_tokens(source.__next__):
    if token.type == tokenize.COMMENT:
      # A comment behind code leaves the line a line of code.
      counts["comments"] += 1
      counts["code"] -= not token.line[: token.start[1]].strip()
    else:
      counts["words"] += len(_WORD.findall(token.string))
  for node in ast.walk(ast.parse(text)):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    # Docstrings are neither code nor comments.
    if isinstance(node, kinds) and ast.get_docstring(node) is not None:
      for line in lines[node.body[0].lineno - 1 : node.body[0].end_lineno]:
        counts["code" if line.strip() else "blank"] -= 1
  return counts


def main(args: argparse.Namespace) -> tuple[list[str], None]:
  """The figures, as lines to print."""
  root, files = args.root, modules(args.root)
  if "main" not in files:
    raise ValueError(f"--root={root} has no {PACKAGE}/main.py")
  trees = {m: ast.parse(path.read_text()) for m, path in files.items()}
  counts = {m: count(path.read_text()) for m, path in files.items()}
  total, rooms = collections.Counter[str](), collections.Counter[str]()
  for module, path in files.items():
    total.update(counts[module])
    room = "/".join(path.parent.relative_to(root).parts[:2])
    rooms[room] += counts[module]["code"]
  words = {m: c["words"] for m, c in counts.items() if re.match(_LOOP, m)}
  code = [f"{m}: {c}" for m in files for c in ast.unparse(trees[m]).split("\n")]
  named = [m for m, path in files.items() if path.stem != "__init__"]
  graph = arrows(trees)
  found = {
    "files over 500 lines": [m for m in named if counts[m]["lines"] > 500],
    "files under 30 lines": [m for m in named if counts[m]["lines"] < 30],
    "modules on a circle": [m for m in graph if m in reach(m, graph)],
    "arrows that the table lacks": forbidden(graph, table_of(root)),
  }
  for what, pattern in _ONCE.items():
    found[what] = [line for line in code if re.match(pattern, line)]

  lines: list[str] = []

  def show(what: str, value: object, details: Collection[str] = ()) -> None:
    lines.extend([f"{what:<44}{value:>8}", *(f"    {d}" for d in details)])

  # Compiled files don't count: they stay where a folder was moved away.
  paths = [path.relative_to(root) for path in root.glob(f"{PACKAGE}/**/*.*")]
  top = {path.parts[1] for path in paths if "__pycache__" not in path.parts}
  top -= {"py.typed"}  # a mark for type checkers, and no room
  show(f"entries at the top of {PACKAGE}/", len(top))
  show("lines of main.py", counts["main"]["lines"])
  details = [f"{m} {number}" for m, number in words.items() if number]
  show("top1, ema_top1, labels in loop and run/", sum(words.values()), details)
  details = [f"{room:<40}{lines:>8,}" for room, lines in sorted(rooms.items())]
  show("lines of code", f"{total['code']:,}", details)
  # The first count took these off twice; its numbers can be compared with this.
  show("  less blanks in docstrings", f"{total['code'] + total['blank']:,}")
  show("comments, share of lines", f"{total['comments'] / total['filled']:.1%}")
  for what, places in found.items():
    show(what, len(places), places)
  return lines, None


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments."""
  parser.add_argument("--root", type=pathlib.Path, default=".", help="checkout")


if __name__ == "__main__":
  print(*main(argparse.Namespace(root=pathlib.Path()))[0], sep="\n")
