"""The layout in figures, on a small tree whose figures are known."""

import pathlib
import textwrap

import pytest

from benchmarks import __main__ as command

TREE = {
  "mobilevit_jax/__init__.py": '"""Public names."""\n',
  "mobilevit_jax/main.py": "from mobilevit_jax import train\n",
  "mobilevit_jax/train.py": '''
    """Trains.

    As labels say."""

    # Labels are counted in code and strings: these labels are in a comment.
    best_top1, metrics = f"{name}_ema_top1", batch["labels"]  # why
    stop1, relabels = "top10", \'\'\'
      one
    \'\'\'
    ''',
  "mobilevit_jax/data/plan.py": "from mobilevit_jax import train\n",
  "mobilevit_jax/data/loading.py": "from mobilevit_jax.data import plan\n",
  "mobilevit_jax/run/best.py": """
    from mobilevit_jax import __version__
    from mobilevit_jax import main
    def unfold(x):
      rank = (x > own) | ((x == own) & before)
      part.replace(path)
      "a".replace("b", "c")
      os.replace(part, path)
      return jax.jit(f)
    """,
  "benchmarks/speed.py": "from mobilevit_jax.run import best\njax.jit(f)\n",
  "tests/test_imports.py": """
    ALLOWED: dict[str, set[str]] = {
      "main": {"train"},
      "train": set(),
      "data": {"train"},
      "run": set(),
      "benchmarks": {"*"},
    }
    """,
}


@pytest.fixture
def root(tmp_path):
  for name, text in TREE.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"))
  for folder in ("__pycache__", "moved/__pycache__"):
    (tmp_path / "mobilevit_jax" / folder).mkdir(parents=True)
    (tmp_path / "mobilevit_jax" / folder / "a.pyc").touch()
  return tmp_path


def test_figures_of_a_known_tree(root, capsys):
  assert command.main(["house", f"--root={root}"]) == 0
  printed = capsys.readouterr().out.splitlines()
  assert [" ".join(line.split()) for line in printed] == [
    "entries at the top of mobilevit_jax/ 5",
    "lines of main.py 1",
    "top1, ema_top1, labels in loop and run/ 4",
    "train 4",  # in the docstring, a name and two strings
    "lines of code 17",
    "benchmarks 2",
    "mobilevit_jax 5",
    "mobilevit_jax/data 2",
    "mobilevit_jax/run 8",
    "less blanks in docstrings 16",
    "comments, share of lines 9.5%",  # 2 of 21
    "files over 500 lines 0",
    "files under 30 lines 6",
    "data.loading",
    "data.plan",
    "main",
    "run.best",
    "train",
    "benchmarks.speed",
    "modules on a circle 0",
    "arrows that the table lacks 1",
    "run.best -> main",
    "functions named unfold 1",
    "run.best: def unfold(x):",
    "top-k with ties 1",
    "run.best: rank = (x > own) | (x == own) & before",
    "files put in the place of another 2",
    "run.best: part.replace(path)",
    "run.best: os.replace(part, path)",
    "jitted forward passes over a set 1",
    "run.best: return jax.jit(f)",
  ]


def test_lines_of_a_second_copy_and_a_long_file_show(root, capsys):
  package = root / "mobilevit_jax"
  (package / "train.py").write_text("import mobilevit_jax.data.plan\n" * 501)
  (package / "report").mkdir()
  (package / "report" / "statistics.py").write_text("def unfold(y): ...\n")
  command.main(["house", f"--root={root}"])
  printed = capsys.readouterr().out
  assert "files over 500 lines                               1" in printed
  assert "modules on a circle                                2" in printed
  assert "    report.statistics: def unfold(y):\n" in printed


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, capsys):
  assert command.main(["house", f"--root={tmp_path}"]) == 1
  assert (
    f"--root={tmp_path} has no mobilevit_jax/main.py" in capsys.readouterr().err
  )


def test_this_checkout_can_be_counted(capsys):
  root = pathlib.Path(__file__).resolve().parents[2]
  command.main(["house", f"--root={root}"])
  printed = capsys.readouterr().out
  assert "functions named unfold                             1\n" in printed
  assert "modules on a circle                                0\n" in printed
