"""The import arrows and house rules, read from the syntax tree.

Importing something new is a decision about the design: add the arrow to
`import_arrows.py` in the same change, and say why there.
"""

import ast
from collections.abc import Iterator
import pathlib
import subprocess
import sys

import pytest

from tests.import_arrows import ALLOWED

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "mobilevit_jax"
MAX_LINES = 300

_JAX = {"flax", "jax", "jaxlib", "optax", "orbax"}
_TENSORFLOW = {"clu", "tensorboard", "tensorflow", "tensorflow_datasets"}

# What a module, its sub-modules and all they import of ours never import.
NEVER: dict[str, set[str]] = {
  "data": _JAX,
  "losses": _TENSORFLOW,
  "models": _TENSORFLOW,
  "optim": _TENSORFLOW,
  "sharding": _TENSORFLOW,
  "steps": _TENSORFLOW,
}

# Names that only these modules may say.
ONLY_IN: dict[str, set[str]] = {
  "FLAGS": {"main", "benchmark.input"},
  "Mesh": {"sharding"},
  "make_mesh": {"sharding"},
  "jax_utils": set(),
  "orbax": {"checkpoint"},
  "pmap": set(),
}

BANNED_MODULES = ("flax.jax_utils", "flax.training")


def _name(path: pathlib.Path) -> str:
  """Returns "data.plan" for data/plan.py and "data" for data/__init__.py."""
  parts = path.with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parse(folder: pathlib.Path) -> dict[str, ast.Module]:
  """Returns the syntax tree of every module under the folder, by name."""
  return {
    _name(path.relative_to(folder)): ast.parse(path.read_text(), str(path))
    for path in sorted(folder.rglob("*.py"))
  }


def _imports(tree: ast.Module) -> Iterator[str]:
  """Yields "a.b" for `import a.b` and "a.b.c" for `from a.b import c`."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = "." * node.level + (node.module or "")
      yield from (f"{base}.{alias.name}" for alias in node.names)


def _names(tree: ast.Module) -> set[str]:
  """Returns every name, attribute and part of an imported name."""
  names = {part for name in _imports(tree) for part in name.split(".")}
  for node in ast.walk(tree):
    if isinstance(node, ast.Name):
      names.add(node.id)
    elif isinstance(node, ast.Attribute):
      names.add(node.attr)
  return names


def _ours(tree: ast.Module, modules: dict[str, ast.Module]) -> set[str]:
  """Returns the modules of the package that the tree imports."""
  found = set()
  for name in _imports(tree):
    head, _, inner = name.partition(".")
    if head == PACKAGE:
      # The last part is either a module or something defined in one.
      found.add(inner if inner in modules else inner.rpartition(".")[0])
  return found


def _outside(tree: ast.Module) -> set[str]:
  """Returns the top-level names of all that the tree imports."""
  return {name.partition(".")[0] for name in _imports(tree)}


def _reach(start: str, arrows: dict[str, set[str]]) -> set[str]:
  """Returns all modules that importing `start` imports, itself among them."""
  seen, todo = set(), [start]
  while todo:
    module = todo.pop()
    if module not in seen:
      seen.add(module)
      todo += arrows.get(module, set())
  return seen


def _config_violations(configs: pathlib.Path) -> Iterator[str]:
  permitted = {"configs", "ml_collections", *sys.stdlib_module_names}
  for name, tree in _parse(configs).items():
    for other in sorted(_outside(tree) - permitted):
      yield f"configs.{name} imports {other}: only ml_collections and configs"


def _style_violations(name: str, tree: ast.Module) -> Iterator[str]:
  if name.rpartition(".")[2] == "utils":
    yield f"{name}: a module is named for what it does"
  for imported in _imports(tree):
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
  modules = _parse(root / PACKAGE)
  arrows = {name: _ours(tree, modules) for name, tree in modules.items()}
  found = list(_config_violations(root / "configs"))
  for name, tree in modules.items():
    found += _style_violations(name, tree)
    if name not in ALLOWED:
      found.append(f"{name} is not in ALLOWED")
    for other in sorted(arrows[name] - ALLOWED.get(name, set())):
      found.append(f"new arrow: {name or PACKAGE} -> {other or PACKAGE}")
    for area, never in NEVER.items():
      if f"{name}.".startswith(f"{area}."):
        for reached in sorted(_reach(name, arrows)):
          for other in sorted(_outside(modules[reached]) & never):
            found.append(f"{name} imports {other}, in {reached}")
  return found


def test_imports_and_house_rules():
  assert violations(ROOT) == []


def test_allowed_arrows_make_no_circle():
  for module, targets in ALLOWED.items():
    for target in targets:
      assert module not in _reach(target, ALLOWED), f"{module} <-> {target}"


def test_nobody_may_import_main():
  assert not any("main" in targets for targets in ALLOWED.values())


def test_model_and_step_load_no_tensorflow():
  # What the syntax tree can't show: what our dependencies import in turn.
  code = f"import sys, {PACKAGE}.models, {PACKAGE}.steps; print(*sys.modules)"
  loaded = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert not _TENSORFLOW & set(loaded.stdout.split())


@pytest.mark.parametrize(
  ("path", "source", "expected"),
  [
    ("data/plan.py", "import jax", "data.plan imports jax"),
    ("data/plan.py", "def f():\n  import jax", "data.plan imports jax"),
    ("losses.py", f"from {PACKAGE} import steps", "losses -> steps"),
    ("losses.py", f"import {PACKAGE}.steps", "losses -> steps"),
    ("losses.py", f"from {PACKAGE}.steps import step", "losses -> steps"),
    ("losses.py", f"import {PACKAGE}", f"losses -> {PACKAGE}"),
    ("losses.py", "from . import steps", "imports are absolute"),
    ("losses.py", "import clu.metrics", "steps imports clu, in losses"),
    ("train.py", f"from {PACKAGE} import main", "train -> main"),
    ("train.py", "import orbax.checkpoint as ocp", "train says orbax"),
    ("train.py", "m = jax.sharding.Mesh(d, ())", "train says Mesh"),
    ("train.py", "from absl.flags import FLAGS", "train says FLAGS"),
    ("train.py", "from flax.training import x", "imports flax.training"),
    ("steps.py", "f = jax.pmap(g)", "steps says pmap"),
    ("steps.py", "jax.config.update('a', 1)", "steps changes JAX's settings"),
    ("models/utils.py", "", "models.utils: a module is named"),
    ("models/new.py", "", "models.new is not in ALLOWED"),
    ("../configs/digits.py", f"import {PACKAGE}", f"imports {PACKAGE}"),
  ],
)
def test_violation_is_found(tmp_path, path, source, expected):
  tree = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/data/__init__.py": "",
    f"{PACKAGE}/losses.py": "import jax",
    f"{PACKAGE}/main.py": f"from {PACKAGE} import train",
    f"{PACKAGE}/steps.py": f"from {PACKAGE} import losses",
    f"{PACKAGE}/train.py": f"from {PACKAGE} import steps",
    "configs/digits.py": "import ml_collections",
  }

  def write(name, text):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)

  for name, text in tree.items():
    write(name, text)
  assert violations(tmp_path) == []

  (tmp_path / PACKAGE / "models").mkdir()
  write(f"{PACKAGE}/{path}", source)
  assert any(expected in line for line in violations(tmp_path))


def test_files_stay_under_300_lines():
  long = {}
  for folder in (PACKAGE, "configs", "tests"):
    for path in (ROOT / folder).rglob("*.py"):
      lines = len(path.read_text().splitlines())
      # A table has a row for each module, however many they are.
      if lines >= MAX_LINES and path.name != "import_arrows.py":
        long[str(path.relative_to(ROOT))] = lines
  assert not long
