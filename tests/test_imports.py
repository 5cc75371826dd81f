"""The import arrows and house rules, read from the syntax tree.

Importing something new is a decision about the design: add the arrow to
`ALLOWED` in the same change, and say why there.
"""

import ast
from collections.abc import Iterator
import pathlib
import subprocess
import sys

import pytest

from benchmarks import house

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = house.PACKAGE
MAX_LINES = 500

# What each room may import of the package. A room is a folder without the
# folders in it that have a row of their own, or a file at the top; "" is the
# package's own __init__.py. From the door down to the files:
#   main -> train -> evaluate -> experiment -> tasks, weights, data, run
#   -> models, files
ALLOWED: dict[str, set[str]] = {
  "main": {
    "config",
    "evaluate",
    "report",  # after the run, which it can't lose
    "run",
    "train",
  },
  "train": {
    "config",
    "data",
    "data.check",  # before a run begins
    "evaluate",
    "experiment",
    "files",  # what a terminal may be given
    "run",
    "steps",
    "summary",  # FLOPs of a step, for utilisation
  },
  "evaluate": {
    "config",
    "data",
    "data.transforms",  # the shapes of images
    "experiment",
    "run",
    "steps",
    "tasks",
  },
  # Knows all that a configuration can name, and is alone in that.
  "experiment": {
    "config",
    "data",
    "data.check",
    "data.sources",
    "data.transforms",
    "models",
    "optim",
    "ranges",
    "run",
    "steps",
    "summary",  # a model's multiply-adds, for utilisation
    "tasks",
    "weights",
  },
  # The words that a field may be are those of the room that reads them.
  "ranges": {
    "config",
    "data",
    "data.transforms",
    "models",
    "optim",
    "run",
    "tasks",
    "weights",
  },
  # Batches are dicts here; a meter gets its source as an argument.
  "steps": {"models", "optim", "tasks"},
  "tasks": {"config", "models", "models.heads", "optim"},
  "optim": set(),
  "weights": {
    "command.arguments",
    "config",
    "data.transforms",  # how images are cropped, for other projects' files
    "files",
    "models",
    "models.heads",
    "run",
  },
  "run": {
    "config",
    "data",  # the broken images that a run replaced
    "data.transforms",
    "files",
  },
  "data": {
    "config",
    "data.check",
    "data.prepare",
    "data.sources",
    "data.transforms",
    "files",
  },
  "data.__main__": {  # a door, which no worker imports
    "run",  # how a command ends
    "config",
    "data",  # whether images have boxes
    "data.check",
    "data.prepare",
    "data.sources",
    "experiment",
    "files",
  },
  "data.check": {"config", "data", "data.prepare", "data.sources", "files"},
  "data.sources": {
    "config",
    "data",
    "data.prepare",  # at the first use of a set
  },
  "data.prepare": {"config", "data", "files"},
  "data.transforms": {"config", "data"},
  "models": {"models.heads"},
  "models.heads": {"models"},
  "config": {"files"},
  "files": set(),
  # The public names, then the commands. Others import a command's room only
  # for what it adds up or draws.
  "": {"models", "run", "weights"},  # a command's first Ctrl-C is of `run`
  # Names the others by strings: nothing is loaded before it is asked for.
  "command": {"command.arguments", "run"},
  "command.arguments": set(),
  "command.configs": {"config"},
  "models.__main__": {  # a door
    "command.arguments",
    "models",
    "summary",
  },
  "summary": {"command.arguments", "config", "models", "models.heads", "run"},
  "visualize": {"models"},
  "predict": {
    "command.arguments",
    "config",
    "data",
    "data.sources",
    "data.transforms",
    "evaluate",
    "experiment",
    "files",
    "models",
    "run",
    "steps",
    "tasks",
    "visualize",
    "weights",
  },
  "report": {
    "command.arguments",
    "config",
    "data",
    "data.check",
    "data.sources",
    "data.transforms",
    "evaluate",
    "experiment",
    "files",
    "models",
    "run",
    "steps",
    "tasks",
    "visualize",
    "weights",
  },
  "export": {
    "command.arguments",
    "config",
    "data",
    "data.sources",
    "data.transforms",
    "evaluate",
    "experiment",
    "export.litert",
    "files",
    "models",
    "models.heads",
    "run",
    "steps",
    "tasks",
    "weights",
  },
  "export.litert": {"export", "models", "models.heads"},
  # Exports a run, and asks the file in Python what the page is to answer.
  "demo": {
    "data",
    "data.sources",
    "data.transforms",
    "export",
    "files",
    "run",  # how a signal ends a command
    "weights",
  },
  # What measures the package may use all of it. It is no part of it.
  "benchmarks": {"*"},
}

_JAX = {"flax", "jax", "jaxlib", "optax", "orbax"}
_TENSORFLOW = {"clu", "tensorboard", "tensorflow", "tensorflow_datasets"}

# What a room and all that it imports of ours never import.
NEVER: dict[str, set[str]] = {
  "data": _JAX,
  "models": _TENSORFLOW,
  "optim": _TENSORFLOW,
  "run.sharding": _TENSORFLOW,
  "steps": _TENSORFLOW,
  "tasks": _TENSORFLOW,
}

# Names that only these modules may say.
ONLY_IN: dict[str, set[str]] = {
  "FLAGS": {"main", "benchmarks.input"},
  "Mesh": {"run.sharding"},
  "make_mesh": {"run.sharding"},
  "jax_utils": set(),
  "orbax": {"run.checkpoint"},
  "pmap": set(),
}

BANNED_MODULES = (
  "clu.metric_writers",  # these two import TensorFlow
  "clu.periodic_actions",
  "flax.jax_utils",
  "flax.training",
)

# Files of more than MAX_LINES, and why each has one subject all the same.
LONG: dict[str, str] = {}


def _parse(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(), str(path))


def _names(tree: ast.Module) -> set[str]:
  """Returns every name, attribute and part of an imported name."""
  names = {part for name in house.imports(tree) for part in name.split(".")}
  for node in ast.walk(tree):
    if isinstance(node, ast.Name):
      names.add(node.id)
    elif isinstance(node, ast.Attribute):
      names.add(node.attr)
  return names


def _outside(tree: ast.Module) -> set[str]:
  """Returns the top-level names of all that the tree imports."""
  return {name.partition(".")[0] for name in house.imports(tree)}


def _circles(graph: house.Arrows) -> list[str]:
  return [name for name in graph if name in house.reach(name, graph)]


def _config_violations(configs: pathlib.Path) -> Iterator[str]:
  # Relative imports alone: an installed package has the folder inside it.
  permitted = {"", "ml_collections", *sys.stdlib_module_names}
  for path in configs.rglob("*.py"):
    for other in sorted(_outside(_parse(path)) - permitted):
      yield f"{path.stem} imports {other}: only ml_collections and neighbours"


def _style_violations(name: str, tree: ast.Module) -> Iterator[str]:
  if name.rpartition(".")[2] == "utils":
    yield f"{name}: a module is named for what it does"
  for imported in house.imports(tree):
    if imported.startswith("."):
      yield f"{name} imports {imported}: imports are absolute"
    if f"{imported}.".startswith(tuple(f"{m}." for m in BANNED_MODULES)):
      yield f"{name} imports {imported}"
  for said in sorted(_names(tree) & ONLY_IN.keys()):
    if name not in ONLY_IN[said]:
      yield f"{name} says {said}: only {sorted(ONLY_IN[said])} may"
  for node in tree.body:
    if ast.unparse(node).startswith("jax.config.update"):
      yield f"{name} changes JAX's settings when imported"


def violations(root: pathlib.Path) -> list[str]:
  """Returns one line for each rule that the tree under `root` breaks."""
  trees = {name: _parse(path) for name, path in house.modules(root).items()}
  arrows = house.arrows(trees)
  found = list(_config_violations(root / "configs"))
  found += [f"new arrow: {arrow}" for arrow in house.forbidden(arrows, ALLOWED)]
  found += [f"on a circle: {name}" for name in _circles(arrows)]
  for name, tree in trees.items():
    found += _style_violations(name, tree)
    if house.row(name, ALLOWED) is None:
      found.append(f"{name} has no row in ALLOWED")
    if "main" in arrows[name]:
      found.append(f"{name} imports main, which nobody does")
    for area, never in NEVER.items():
      # A command's door is no part of what workers import.
      if f"{name}.".startswith(f"{area}.") and "__main__" not in name:
        for reached in sorted({name} | house.reach(name, arrows)):
          for other in sorted(_outside(trees[reached]) & never):
            found.append(f"{name} imports {other}, in {reached}")
  return found


def test_imports_and_house_rules():
  assert violations(ROOT) == []


def test_table_names_what_there_is():
  names = {"", "benchmarks"} | {
    path.relative_to(ROOT / PACKAGE).with_suffix("").as_posix()
    for path in (ROOT / PACKAGE).rglob("*")
    if path.suffix == ".py" or path.is_dir()
  }
  rows = {row.replace(".", "/") for row in ALLOWED}
  targets = {name for targets in ALLOWED.values() for name in targets}
  assert rows - names == set()
  assert targets - ALLOWED.keys() == {"*"}


def test_allowed_arrows_make_no_circle():
  # A folder's own files import the folders in it, and these import the
  # folder's own files: export/formats.py needs export/litert/, which needs
  # export/contract.py. There, only a circle of modules would be wrong.
  outside: dict[str, set[str]] = {}
  inside: dict[str, set[str]] = {}
  for row, targets in ALLOWED.items():
    # A door leads out of its folder, and nobody imports it.
    room = row if row.endswith("__main__") else row.partition(".")[0]
    rooms = {target.partition(".")[0] for target in targets}
    outside[room] = outside.get(room, set()) | rooms - {room}
    inside[row] = {t for t in targets if "." in t} if "." in row else set()
  assert _circles(outside) == []
  assert _circles(inside) == []


def test_nobody_may_import_main_or_benchmarks():
  for targets in ALLOWED.values():
    assert not targets & {"main", "benchmarks"}


@pytest.mark.parametrize(
  ("modules", "never"),
  [
    # A whole run: the base installation has none of these.
    ("train report predict", _TENSORFLOW - {"clu"}),
    ("command", {*_JAX, "absl", "ml_collections", "numpy"}),
  ],
)
def test_what_is_loaded(modules, never):
  # What the syntax tree can't show: what our dependencies import in turn.
  names = ", ".join(f"{PACKAGE}.{name}" for name in modules.split())
  code = f"import sys, {names}; print(*sys.modules)"
  loaded = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert not never & set(loaded.stdout.split())


@pytest.mark.parametrize(
  ("path", "source", "expected"),
  [
    ("data/plan.py", "import jax", "data.plan imports jax"),
    ("data/plan.py", "def f():\n  import jax", "data.plan imports jax"),
    (
      "data/plan.py",
      f"from {PACKAGE} import config\nfrom {PACKAGE} import steps",
      "data.plan imports jax, in tasks.mix",
    ),
    ("data/check/a.py", f"import {PACKAGE}.steps", "data.check.a -> steps"),
    (
      "data/sources/a.py",
      f"from {PACKAGE}.data.transforms import crop",
      "data.sources.a -> data.transforms",
    ),
    ("tasks/a.py", f"from {PACKAGE} import steps", "tasks.a -> steps"),
    ("tasks/a.py", f"import {PACKAGE}.steps", "tasks.a -> steps"),
    ("tasks/a.py", f"from {PACKAGE}.steps import step", "tasks.a -> steps"),
    ("tasks/a.py", f"import {PACKAGE}", f"tasks.a -> {PACKAGE}"),
    ("tasks/a.py", f"from {PACKAGE}.data import plan", "tasks.a -> data"),
    ("tasks/a.py", "from benchmarks import train", "tasks.a -> benchmarks"),
    ("tasks/a.py", "from . import steps", "imports are absolute"),
    ("tasks/mix.py", "import clu.metrics", "steps imports clu, in tasks.mix"),
    ("train.py", f"from {PACKAGE} import main", "train -> main"),
    ("../benchmarks/a.py", f"import {PACKAGE}.main", "benchmarks.a imports ma"),
    ("train.py", "import orbax.checkpoint as ocp", "train says orbax"),
    ("train.py", "m = jax.sharding.Mesh(d, ())", "train says Mesh"),
    ("train.py", "from absl.flags import FLAGS", "train says FLAGS"),
    ("train.py", "from flax.training import x", "imports flax.training"),
    ("steps.py", "f = jax.pmap(g)", "steps says pmap"),
    ("steps.py", "jax.config.update('a', 1)", "steps changes JAX's settings"),
    ("models/utils.py", "", "models.utils: a module is named"),
    ("new.py", "", "new has no row in ALLOWED"),
    ("new/room.py", "", "new.room has no row in ALLOWED"),
    ("tasks/mix.py", f"import {PACKAGE}.tasks.mix", "on a circle: tasks.mix"),
    ("../configs/digits.py", f"import {PACKAGE}", f"imports {PACKAGE}"),
    ("../configs/digits.py", "from configs import a", "imports configs"),
  ],
)
def test_violation_is_found(tmp_path, path, source, expected):
  tree = {
    f"{PACKAGE}/__init__.py": f"from {PACKAGE} import models",
    f"{PACKAGE}/config.py": f"from {PACKAGE} import __version__",
    f"{PACKAGE}/data/__init__.py": f"from {PACKAGE} import config",
    f"{PACKAGE}/data/transforms/__init__.py": "",
    f"{PACKAGE}/main.py": f"from {PACKAGE} import train",
    f"{PACKAGE}/models/__init__.py": "import jax",
    f"{PACKAGE}/steps.py": f"from {PACKAGE}.tasks import mix",
    f"{PACKAGE}/tasks/mix.py": "import jax",
    f"{PACKAGE}/train.py": f"from {PACKAGE} import steps",
    "benchmarks/train.py": f"from {PACKAGE} import train",
    "configs/digits.py": "from . import imagenet\nimport ml_collections",
  }

  def write(name, text):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)

  for name, text in tree.items():
    write(name, text)
  assert violations(tmp_path) == []

  write(f"{PACKAGE}/{path}", source)
  assert any(expected in line for line in violations(tmp_path))


def test_long_files_have_a_reason():
  long = {}
  for folder in (PACKAGE, "benchmarks", "configs", "docs", "tests"):
    for path in (ROOT / folder).rglob("*.py"):
      lines = len(path.read_text().splitlines())
      if lines > MAX_LINES:
        long[str(path.relative_to(ROOT))] = lines
  # Ask first whether the file has two subjects.
  assert long.keys() == LONG.keys()
