"""The notebooks are clean, alike where they should be, and run.

They run in kernels of their own, as in Jupyter, on small data: after the cell
of parameters comes one with a test's.
"""

import importlib.metadata
import os
import pathlib
import subprocess
import sys
import types

import nbclient
import nbformat
import pytest

import mobilevit_jax

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
NAMES = (
  "quickstart",
  "unfold_fold",
  "attention",
  "separable_attention",
  "features",
  "finetune",
  "segmentation",
  "detection",
  "export",
  "training_curves",
)
_COLAB = (
  "https://colab.research.google.com/github/mobilevit-jax/mobilevit_jax/blob/"
  "main/notebooks"
)

_LITERT_GREETING = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."


def _read(name):
  return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def _code(name):
  return [cell for cell in _read(name).cells if cell.cell_type == "code"]


def test_every_notebook_is_tested():
  assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_clean(name):
  notebook = _read(name)
  nbformat.validate(notebook)
  for cell in _code(name):
    # `jupyter nbconvert --clear-output --inplace` takes them away.
    assert cell.outputs == []
    assert cell.execution_count is None
  # As nbformat writes it, so that a change shows as what it is.
  text = (FOLDER / f"{name}.ipynb").read_text()
  assert text == nbformat.writes(notebook) + "\n"
  assert notebook.cells[0].source.startswith(
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg"
    f")]({_COLAB}/{name}.ipynb)\n\n# "
  )
  assert [cell.id for cell in _code(name)][:2] == ["install", "parameters"]
  assert _code(name)[1].metadata == {"tags": ["parameters"]}
  assert _code(name)[0].source == _code(NAMES[0])[0].source


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_notebooks_that_exist(name):
  for cell in _read(name).cells:
    for word in cell.source.replace("`", " ").split():
      if word.endswith(".ipynb"):
        assert (FOLDER / word).exists(), word


def _install(monkeypatch, folder, *, colab):
  """Runs the first cell; returns the commands that it would have run."""
  commands = []

  def run(command, check):
    assert check  # a failure must not go unseen
    commands.append(command)
    if command[0] == "git":
      pathlib.Path(command[-1]).mkdir()

  monkeypatch.chdir(folder)
  monkeypatch.setattr(subprocess, "run", run)
  monkeypatch.setattr(sys, "path", list(sys.path))
  if colab:
    monkeypatch.setitem(
      sys.modules, "google.colab", types.ModuleType("google.colab")
    )
  source = _code(NAMES[0])[0].source
  assert source.count("\n%matplotlib inline") == 1
  exec(source.replace("%matplotlib inline", ""), {})
  return commands, sys.path[0]


def test_colab_keeps_its_jax_and_gets_this_version(monkeypatch, tmp_path):
  commands, root = _install(monkeypatch, tmp_path, colab=True)
  assert root == str(tmp_path / "repository")
  clone, install = commands
  tag = f"--branch v{mobilevit_jax.__version__} "
  assert tag in " ".join(clone)
  kept = pathlib.Path(root) / "kept.txt"
  assert kept.read_text().splitlines() == [
    f"{name}=={importlib.metadata.version(name)}"
    for name in ("jax", "jaxlib", "flax")
  ]
  assert install == [
    *(sys.executable, "-m", "pip", "install", "--quiet"),
    *("-c", str(kept), root),
  ]
  # Run once more, perhaps after a failure, it only installs.
  commands, _ = _install(monkeypatch, tmp_path, colab=True)
  assert commands == [install]


def test_elsewhere_nothing_is_installed(monkeypatch, tmp_path):
  commands, root = _install(monkeypatch, tmp_path, colab=False)
  assert (commands, root) == ([], str(tmp_path.parent))


def _run(name, parameters, tmp_path):
  """Runs a notebook; returns what it printed, and how many figures it shows."""
  # Beside the package, as in a checkout; what it writes stays out of ours.
  folder = tmp_path / "notebooks"
  folder.mkdir()
  for neighbour in ("benchmarks", "configs", "mobilevit_jax", "tests"):
    (tmp_path / neighbour).symlink_to(FOLDER.parent / neighbour)
  notebook = _read(name)
  (index,) = [
    index
    for index, cell in enumerate(notebook.cells)
    if "parameters" in cell.metadata.get("tags", ())
  ]
  injected = nbformat.v4.new_code_cell("\n".join(parameters))
  notebook.cells.insert(index + 1, injected)
  client = nbclient.NotebookClient(
    notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
  )
  # One device, as a user has; and ipykernel, told of pytest, would not show
  # what a cell's commands print.
  env = {**os.environ, "XLA_FLAGS": ""}
  del env["PYTEST_CURRENT_TEST"]
  client.execute(env=env)
  outputs = [
    output
    for cell in notebook.cells
    if cell.cell_type == "code"
    for output in cell.outputs
  ]
  printed = {"stdout": "", "stderr": ""}
  for output in outputs:
    if output.output_type == "stream":
      printed[output.name] += output.text
  # Warnings and logs go there: a reader would have to wonder about them. Only
  # LiteRT's greeting comes from C++, and can't be helped.
  lines = printed["stderr"].splitlines()
  assert [line for line in lines if line != _LITERT_GREETING] == []
  return printed["stdout"], sum(
    "image/png" in output.get("data", {}) for output in outputs
  )


@pytest.mark.slow
def test_quickstart(tmp_path):
  printed, figures = _run("quickstart", [], tmp_path)  # as it is
  assert "stage5 (1, 1, 80)" in printed
  assert "1,272,024" in printed
  assert figures == 1


@pytest.mark.slow
def test_unfold_fold(tmp_path):
  printed, figures = _run("unfold_fold", [], tmp_path)
  # The Laplacian of 1 to 9 with zeros around, by hand.
  assert printed.count("[[  2.   1.  -4.]") == 2
  assert "[[ 0  2  8 10]" in printed
  assert "reshape" in printed and "transpose" in printed
  assert figures == 1


@pytest.mark.slow
def test_attention(tmp_path):
  small = ["WEIGHTS = None", "SIZE = 64", "QUERY = (30, 33)"]
  printed, figures = _run("attention", small, tmp_path)
  assert "stage4 (4, 4, 4, 4, 4)" in printed
  assert figures == 2


@pytest.mark.slow
def test_separable_attention(tmp_path):
  small = ["WEIGHTS = None", "MODEL = 'mobilevitv2_050'", "SIZE = 64"]
  printed, figures = _run("separable_attention", small, tmp_path)
  assert "stage4 (4, 4, 4) (4, 4)" in printed
  lines = [line.split() for line in printed.splitlines()]
  totals = {
    (line[0], line[1]): (float(line[2]), float(line[4].replace(",", "")))
    for line in lines
    if len(line) == 6 and line[1].isdecimal()
  }
  small, large = (totals["mobilevit_s", side] for side in ("256", "512"))
  assert large[0] / small[0] == pytest.approx(16, rel=0.01)
  small, large = (totals["mobilevitv2_050", side] for side in ("256", "512"))
  assert small[0] == large[0] == 0
  assert large[1] / small[1] == pytest.approx(4, rel=0.01)
  assert figures == 1


@pytest.mark.slow
def test_features(tmp_path):
  small = ["WEIGHTS = None", "SIZE = 64", "STAGES = ('stage3',)"]
  _, figures = _run("features", small, tmp_path)
  assert figures == 2


@pytest.mark.slow
def test_finetune(tmp_path):
  printed, figures = _run("finetune", ["EPOCHS = 1"], tmp_path)
  assert "looks like another, not the same" in printed
  assert "weights: teaching:digits (jax, " in printed
  run = tmp_path / "notebooks" / "runs" / "finetune"
  assert (run / "report" / "index.html").exists()
  assert "digits/even/" in printed  # and its classes
  assert figures == 1


@pytest.mark.slow
def test_segmentation(tmp_path):
  small = [
    # A net that compiles in seconds.
    "from tests import tiny_segment_config",
    "WEIGHTS, MODEL, SIZE, EPOCHS, IMAGES = None, 'tiny', 32, 2, 32",
  ]
  _, figures = _run("segmentation", small, tmp_path)
  run = tmp_path / "notebooks" / "runs" / "segmentation"
  assert "mean IoU" in (run / "report" / "index.html").read_text()
  # Masks, two of the taps, curves, overlays.
  assert figures == 5


@pytest.mark.slow
def test_detection(tmp_path):
  pytest.importorskip("pycocotools")
  small = [
    "from tests import tiny_detect_config",
    "WEIGHTS, MODEL, SIZE, EPOCHS, IMAGES = None, 'tiny_detect', 64, 2, 32",
  ]
  printed, figures = _run("detection", small, tmp_path)
  assert "142 anchors at 64 px" in printed
  run = tmp_path / "notebooks" / "runs" / "detection"
  assert "average precision" in (run / "report" / "index.html").read_text()
  # Anchors, matches, curves, boxes.
  assert figures == 4


@pytest.mark.slow
def test_training_curves(tmp_path):
  small = [
    # A net that compiles in seconds.
    "from mobilevit_jax import models",
    "from tests import tiny",
    "models.FAMILIES['tiny'] = tiny.FAMILY",
    "MODEL, STEPS = 'tiny', 50",
  ]
  printed, figures = _run("training_curves", small, tmp_path)
  assert "'ema_top1'" in printed
  assert figures == 2


@pytest.mark.slow
@pytest.mark.export
def test_export(tmp_path):
  pytest.importorskip("ai_edge_litert")
  pytest.importorskip("onnxruntime")
  small = ["WEIGHTS = None", "SIZE = 64", "ROUNDS = 1"]
  printed, _ = _run("export", small, tmp_path)
  assert printed.count("same class: 100.0% of 2 images") == 2
