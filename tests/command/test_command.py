"""`mobilevit COMMAND`: found by name, quick to help, and what it lists."""

import argparse
import pathlib
import resource
import subprocess
import sys

import pytest

from mobilevit_jax import __version__
from mobilevit_jax import command
from mobilevit_jax import config
from mobilevit_jax import models
from mobilevit_jax.command import arguments
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.models import __main__ as models_command
from mobilevit_jax.weights import names
from mobilevit_jax.weights import source

ROOT = pathlib.Path(__file__).resolve().parents[2]
# JAX and its friends take two seconds and more, so none may be loaded.
_HELP = """
import sys
from mobilevit_jax import command
try:
  command.main(sys.argv[1:])
except SystemExit as end:
  assert end.code in (0, None), end.code
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("name", [*sorted(command.COMMANDS), ""])
def test_help_comes_before_jax(name):
  words = [name, "--help"] if name else ["--help"]
  begin = resource.getrusage(resource.RUSAGE_CHILDREN)
  said = subprocess.run(
    [sys.executable, "-c", _HELP, *words],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  end = resource.getrusage(resource.RUSAGE_CHILDREN)
  # Of the processor, not of the clock: the machine may be busy.
  used = (end.ru_utime + end.ru_stime) - (begin.ru_utime + begin.ru_stime)
  assert used < 1
  *text, modules = said.strip().splitlines()
  assert any("usage:" in line or "--config" in line for line in text)
  heavy = {"jax", "flax", "tensorflow", "cv2", "scipy", "matplotlib"}
  assert not heavy & set(modules.split())


def test_every_command_has_a_module_with_a_main():
  for name, row in command.COMMANDS.items():
    assert f"  {name} " in command.usage()
    path = ROOT.joinpath(*row.module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    there = [file.read_text() for file in files if file.is_file()]
    assert "\ndef main(" in there[0], name


def _choices(name):
  parser: argparse.ArgumentParser = arguments.PARSERS[name]()
  return {a.dest: tuple(a.choices) for a in parser._actions if a.choices}


def test_words_are_those_of_the_tables():
  assert _choices("export") == {
    "which": source.WHICH,
    "format": tuple(formats.FORMATS),
    "precision": contract.PRECISIONS,
    "input": ("float32", "uint8"),
    "attention": contract.ATTENTION,
    "preset": presets.PRESETS,
  }
  assert _choices("predict") == {
    "which": source.WHICH,
    "preset": presets.PRESETS,
  }
  assert _choices("report") == {"which": source.WHICH}
  assert _choices("weights")["to"] == (*names.DIALECTS, "hub")
  assert _choices("weights")["which"] == source.WHICH


def test_wrong_and_old_names_are_told_apart(capsys):
  assert command.main(["tran"]) == 2
  assert "no command 'tran', only train, eval" in capsys.readouterr().err
  assert command.main(["prepare_data", "x"]) == 2
  assert "is now mobilevit data" in capsys.readouterr().err
  assert command.main(["--version"]) == 0
  assert capsys.readouterr().out == f"mobilevit_jax {__version__}\n"


def test_configurations_are_listed(capsys):
  assert command.main(["configs"]) == 0
  said = capsys.readouterr().out
  assert [
    line.split()[0] for line in said.splitlines()[:5]
  ] == config.config_names()
  assert "fields" not in config.config_names()
  assert command.main(["configs", "finetune"]) == 0
  assert "finetune.py:VARIANT" in capsys.readouterr().out
  with pytest.raises(SystemExit):
    command.main(["configs", "fields"])
  assert "no configuration 'fields'" in capsys.readouterr().err


def test_a_configuration_is_found_by_name_and_has_its_neighbours(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  by_name = config.read_config("finetune:xxs,scratch", ["--config.seed=3"])
  assert (by_name.model.name, by_name.seed) == ("mobilevit_xxs", 3)
  # A copy of the folder, and a file of one's own beside it.
  (tmp_path / "mine").mkdir()
  digits = "def get_config():\n  from . import base\n  return base.get()\n"
  (tmp_path / "mine" / "digits.py").write_text(digits)
  base = "import ml_collections\ndef get():\n  return ml_collections.ConfigDict"
  (tmp_path / "mine" / "base.py").write_text(f"{base}({{'model': 'own'}})\n")
  assert config.read_config("mine/digits.py").model == "own"
  assert config.read_config("digits").model.name == "mobilevit_xxs"
  with pytest.raises(
    config.ConfigError, match=r"No such file: 'digit'.*digits"
  ):
    config.read_config("digit")


def test_every_net_is_listed_with_its_published_figure(capsys):
  assert models_command.PUBLISHED.keys() == models.VARIANTS.keys()
  assert command.main(["models", "xxs", "v2_050"]) == 0
  _, first, second = capsys.readouterr().out.splitlines()
  assert first.split()[:4] == [
    *("mobilevit_xxs", "1,272,024", "407,364,096", "69.0"),
  ]
  assert second.split()[3] == "70.18"
  assert command.main(["models", "xxs", "--size=1"]) == 1
