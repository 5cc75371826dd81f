"""The site's generated parts, and that its menu leaves no page out.

`make docs` builds the pages themselves, strictly.
"""

import ast
import pathlib
import re
from xml.etree import ElementTree

from flax import nnx
import jax
import numpy as np
import pytest
import yaml

from configs import fields
from configs import imagenet
from docs.generate import architecture
from docs.generate import commands
from docs.generate import configuration
from docs.generate import files
from docs.generate import heads
from docs.generate import parts
from docs.generate import peers
from docs.generate import training
from mobilevit_jax import models
from mobilevit_jax.models import mobilevit

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FIGURES = [name for name in parts.PARTS if name.startswith("figure_")]


def _cells(table: str) -> dict[str, list[str]]:
  """Cells of a Markdown table's rows by the first one, code marks left out."""
  rows = [
    [cell.strip(" `") for cell in line.strip("|").split(" | ")]
    for line in table.splitlines()
    if line.startswith("|")
  ]
  return {first: rest for first, *rest in rows}


def _pages(menu) -> list[str]:
  if isinstance(menu, str):
    return [menu]
  inside = menu.values() if isinstance(menu, dict) else menu
  return [page for part in inside for page in _pages(part)]


def test_every_page_is_in_the_menu_once():
  site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
  there = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
  elsewhere = ["changelog.md", "contributing.md", "launch.md"]
  assert sorted(_pages(site["nav"])) == sorted([*there, *elsewhere])


def test_pages_ask_for_all_parts_and_for_no_others():
  asked = {
    words.split()[0]
    for path in DOCS.rglob("*.md")
    for words in re.findall("<!-- generate: (.+) -->", path.read_text())
  }
  assert asked == parts.PARTS.keys()


def test_reference_has_exactly_the_fields_with_their_defaults():
  config = imagenet.get_config("s")
  cells = _cells(configuration.reference())
  assert {name for name in cells if name in fields.FIELDS} == set(fields.FIELDS)
  for name, (kind, default, _, meaning, *allowed) in cells.items():
    if name not in fields.FIELDS:
      continue
    value = config
    for part in name.split("."):
      value = value[part]
    assert meaning and allowed
    if isinstance(value, tuple):
      shown = tuple(float(item) for item in default.strip("(),").split(", "))
      np.testing.assert_allclose(shown, value, rtol=1e-3)
    elif isinstance(value, float):
      np.testing.assert_allclose(float(default), value, rtol=1e-3)
    else:
      assert default == repr(value)
    if value is not None:
      assert kind.split()[0] == type(value).__name__


def test_a_field_without_a_description_is_refused(monkeypatch):
  monkeypatch.delitem(fields.FIELDS, "optim.peak_lr")
  with pytest.raises(ValueError, match=r"does not describe.*optim\.peak_lr"):
    parts.make("config")
  monkeypatch.setitem(fields.FIELDS, "optim.peak_lr", ("", "x"))
  monkeypatch.setitem(fields.FIELDS, "optim.peek_lr", ("", "x"))
  with pytest.raises(ValueError, match=r"optim\.peek_lr.*is no field"):
    parts.make("config")


def test_changes_are_all_and_only_what_a_config_sets():
  cells = _cells(configuration.changes("digits"))
  assert cells["plan.sizes"] == ["(160, 192, 256, 288, 320)", "(32,)"]
  assert cells["data.name"] == ["'imagenet2012'", "'digits'"]
  assert "seed" not in cells
  assert "model.name" not in cells  # both are XXS


@pytest.mark.parametrize("name", ["mobilevit_jax.main", "benchmarks"])
def test_a_command_that_the_reference_lacks_is_refused(monkeypatch, name):
  commands.check()
  others = tuple(other for other in commands.COMMANDS if other != name)
  monkeypatch.setattr(commands, "COMMANDS", others)
  with pytest.raises(ValueError, match=rf"\['{name}'\]"):
    parts.make("commands")


def test_commands_show_their_flags():
  text = parts.make("commands")
  for flag in ("`--workdir`", "--calibration_images", "--sample", "--against"):
    assert flag in text


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_well_formed_and_always_the_same(name):
  figure = parts.make(name)
  ElementTree.fromstring(figure)
  assert "\n\n" not in figure  # Markdown would end the block there
  training.plan.cache_clear()
  architecture.layers.cache_clear()
  assert parts.make(name) == figure


def test_files_of_figures_are_what_the_code_draws():
  for name, content in files.figures().items():
    assert (DOCS / "assets" / name).read_text() == content, (
      f"{name}: python -m docs.generate.files draws it again"
    )


@pytest.mark.parametrize(
  ("heading", "draw"),
  [
    ("At a size", peers.accuracy_by_size),
    ("On a phone", peers.accuracy_by_latency),
  ],
)
def test_figure_has_a_point_for_each_row_of_its_table(heading, draw):
  rows = peers.table(heading)
  figure = draw()
  assert figure.count("<circle") == len(rows) > 5
  own = sum("MobileViT" in row["model"] for row in rows)
  assert figure.count('class="fig-own"') == own > 0


def test_missing_table_of_a_figure_is_named():
  with pytest.raises(ValueError, match="no table under 'Nothing'"):
    peers.table("Nothing")


def test_figures_have_styles():
  style = (DOCS / "assets" / "site.css").read_text()
  used = set(
    re.findall('class="(fig-[a-z0-9]+)"', "".join(map(parts.make, FIGURES)))
  )
  assert all(f".{name} " in style for name in used - {"fig-text"})


@pytest.mark.parametrize("stage", [3, 4, 5])
def test_block_figure_ends_in_the_shape_of_the_stage(stage):
  layers = {layer.name: layer for layer in architecture.layers("mobilevit_xs")}
  figure = architecture.block("mobilevit_xs", stage)
  shapes = re.findall('class="fig-shape"[^>]*>([^<]+)', figure)
  expected = " x ".join(map(str, layers[f"stage{stage}.1"].shape[1:]))
  assert shapes[0] == shapes[-1] == expected
  d = mobilevit.VARIANTS["mobilevit_xs"].dims[stage - 3]
  n = (256 // 2**stage) ** 2 // 4
  assert shapes.count(f"4 x {n} x {d}") == 3


def test_figures_of_heads_have_the_shapes_that_a_net_has():
  net = models.abstract_model("mobilevit_xs", "ssdlite", num_classes=20)
  graphdef, state = nnx.split(net)
  image = jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32)

  def run(state, images):
    net = nnx.merge(graphdef, state)
    return net.head.maps(net.features(images)), net(images)

  maps, out = jax.eval_shape(run, state, image)
  figure = heads.ssdlite_levels("mobilevit_xs", 256)
  shapes = re.findall('class="fig-shape"[^>]*>([^<]+)', figure)
  assert shapes == [" x ".join(map(str, x.shape[1:])) for x in maps]
  counts = re.findall(r">([\d,]+)</text>", figure)
  total = sum(int(count.replace(",", "")) for count in counts)
  assert total == out["logits"].shape[1]
  shapes = re.findall(
    'class="fig-shape"[^>]*>([^<]+)', heads.deeplabv3("mobilevit_xs", 256)
  )
  assert shapes[0] == "16 x 16 x 96" and shapes[2] == "16 x 16 x 256"
  assert shapes[-1] == "256 x 256"


def test_unfold_figure_outlines_the_same_place_of_every_patch():
  figure = architecture.unfold(6, 15)
  # Each of the nine twice: in the map, and unfolded.
  assert figure.count('class="fig-peer"') == 16
  assert figure.count('class="fig-chosen"') == 2


def test_plan_tables_have_the_published_numbers():
  batches = _cells(training.batches())
  assert batches["160"][0] == "2,624"
  assert batches["320"][2] == "648"
  steps = int(_cells(training.lengths())["cvnets_v01"][-1].replace(",", ""))
  assert abs(steps - 257_000) < 1_000


def _undocumented(source: str, name: str) -> list[str]:
  """A class or function, and its public methods, that have no docstring."""
  (found,) = [
    node for node in ast.parse(source).body if getattr(node, "name", "") == name
  ]
  methods = [
    node
    for node in getattr(found, "body", [])
    if isinstance(found, ast.ClassDef)
    and isinstance(node, ast.FunctionDef)
    and not node.name.startswith("_")
  ]
  return [n.name for n in (found, *methods) if not ast.get_docstring(n)]


def test_names_of_the_reference_have_docstrings():
  page = (DOCS / "reference" / "api.md").read_text()
  names = re.findall("^::: (.+)$", page, re.MULTILINE)
  assert len(names) > 30
  for name in names:
    *folders, last = name.split(".")
    path = ROOT.joinpath(*folders)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert _undocumented(path.read_text(), last) == [], name


def test_a_missing_docstring_is_found():
  source = 'class A:\n  """A."""\n  def _b(self): ...\n  def c(self): ...\n'
  assert _undocumented(source, "A") == ["c"]


def test_unknown_parts_are_refused():
  with pytest.raises(ValueError, match="no part 'figure'"):
    parts.make("figure")
  with pytest.raises(ValueError, match="figure_block mobilevit_m"):
    parts.make("figure_block mobilevit_m")
