"""The reference of commands, from what each says to `--help`."""

import contextlib
import importlib
import io
import os
import pathlib
import re
from typing import Any
from unittest import mock

from absl import flags

from docs.generate import docstring
from mobilevit_jax import command

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_MAIN = "mobilevit_jax.main"
# Modules that nobody starts but our own commands, or whose help is with that of
# the others of `benchmarks`.
_INTERNAL = {"benchmarks.infer_worker", "benchmarks.house"}
# In the order of a reader's path; `check` holds it to the modules there are.
COMMANDS = (
  _MAIN,
  "mobilevit_jax.command.configs",
  "mobilevit_jax.models",
  "mobilevit_jax.data",
  "mobilevit_jax.report",
  "mobilevit_jax.predict",
  "mobilevit_jax.export",
  "mobilevit_jax.export.accuracy",
  "mobilevit_jax.demo",
  "mobilevit_jax.demo.engines",
  "mobilevit_jax.weights",
  "mobilevit_jax.summary",
  "benchmarks",
)


def check() -> None:
  """`ValueError` unless `COMMANDS` names every module that can be started."""
  runnable = set()
  for folder in ("mobilevit_jax", "benchmarks"):
    for path in (_ROOT / folder).rglob("*.py"):
      if '__name__ == "__main__"' in path.read_text():
        parts = path.relative_to(_ROOT).with_suffix("").parts
        runnable.add(".".join(p for p in parts if p != "__main__"))
  if differing := (runnable - _INTERNAL) ^ set(COMMANDS):
    raise ValueError(f"commands and COMMANDS differ in {sorted(differing)}")


def reference() -> str:
  """Every command: what its module says, and its help."""
  check()
  lines = []
  for name in COMMANDS:
    folder = _ROOT.joinpath(*name.split("."), "__main__.py").is_file()
    module = importlib.import_module(f"{name}.__main__" if folder else name)
    title = _title(name)
    about = docstring.markdown(module)
    lines += [f"## {title}", "", about, ""]
    if name == _MAIN:
      lines += [*_absl_flags(), ""]
      continue
    text = help_of(module, [])
    lines += ["```text", text, "```", ""]
    for inner in _commands_of(module, text):
      lines += [f"### {title} {inner}", ""]
      lines += ["```text", help_of(module, [inner]), "```", ""]
  return "\n".join(lines)


def _title(name: str) -> str:
  """How a reader starts it: `mobilevit TITLE`, or else its module."""
  rows = command.COMMANDS.items()
  short = [n for n, row in rows if row.module.removesuffix(".__main__") == name]
  return ", ".join(short) or name.removeprefix("mobilevit_jax.")


def help_of(module: Any, words: list[str]) -> str:
  """What a command, or a sub-command of it, prints for `--help`."""
  printed = io.StringIO()
  # argparse asks the environment how wide a line may be, and for colours.
  with (
    mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"}),
    contextlib.redirect_stdout(printed),
    contextlib.suppress(SystemExit),
  ):
    module.main([*words, "--help"])
  return printed.getvalue().rstrip()


def _commands_of(module: object, text: str) -> list[str]:
  """Names of the sub-commands that a help lists."""
  listed = getattr(module, "COMMANDS", None)
  if listed is not None:
    return [*listed]
  braces = re.search(r"^usage: .*\{([\w,]+)\} \.\.\.$", text, re.MULTILINE)
  return braces[1].split(",") if braces else []


def _absl_flags() -> list[str]:
  """A table of the trainer's flags."""
  lines = ["| flag | default | |", "|---|---|---|"]
  for flag in flags.FLAGS.get_flags_for_module(_MAIN):
    if flag.name.startswith("config."):
      continue
    default = "" if flag.default is None else f"`{flag.default}`"
    text = flag.help.replace("<", "").replace(">", "").replace("|", " or ")
    lines.append(f"| `--{flag.name}` | {default} | {text} |")
  return lines
