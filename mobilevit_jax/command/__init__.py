"""`mobilevit COMMAND`: one command for all, each in a module of its own.

    mobilevit train --config=digits --workdir=runs/digits
    mobilevit export --weights=runs/digits --format=onnx --out=digits.onnx

`mobilevit COMMAND --help` says what a command takes. Each is also `python -m`
with its module's name.
"""

# Nothing of the package is imported before it is known what is asked for: JAX
# takes seconds, and a list of flags should not.

from collections.abc import Sequence
import dataclasses
import importlib
import sys

from mobilevit_jax.command import arguments
from mobilevit_jax.run import stop


@dataclasses.dataclass(frozen=True)
class Command:
  """One row of `COMMANDS`.

  Attributes:
    module: whose `main` it is; it takes the arguments.
    text: what it does, for the list.
    first: arguments that come before those given.
  """

  module: str
  text: str
  first: tuple[str, ...] = ()


# In the order of a reader's path.
COMMANDS: dict[str, Command] = {
  "train": Command("mobilevit_jax.main", "train as a configuration says"),
  "eval": Command(
    "mobilevit_jax.main", "evaluate a run, or weights", ("--mode=eval",)
  ),
  "predict": Command("mobilevit_jax.predict", "say what a net sees in images"),
  "export": Command(
    "mobilevit_jax.export.__main__", "write a file for phones and browsers"
  ),
  "report": Command("mobilevit_jax.report.__main__", "a run as one HTML page"),
  "data": Command("mobilevit_jax.data.__main__", "prepare, check, show images"),
  "weights": Command(
    "mobilevit_jax.weights.__main__", "convert weights, write model folders"
  ),
  "summary": Command("mobilevit_jax.summary", "a net's layers and their cost"),
  "configs": Command(
    "mobilevit_jax.command.configs", "list the configurations to train with"
  ),
  "models": Command(
    "mobilevit_jax.models.__main__", "list the nets, with published figures"
  ),
  "demo": Command(
    "mobilevit_jax.demo.__main__", "show a net at work in a browser"
  ),
}
# Names of commands until 0.1.0.
_MOVED = {"convert": "weights", "prepare_data": "data"}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command that the first argument names."""
  if argv is None:
    stop.begin()  # `python -m` has done that
  # No argument at all is a question for help.
  name, *rest = [*(sys.argv[1:] if argv is None else argv), ""][:-1] or ["-h"]
  if name in ("-h", "--help", "help"):
    print(usage())
    return 0
  if name == "--version":
    from mobilevit_jax import __version__

    print(f"mobilevit_jax {__version__}")
    return 0
  if name in _MOVED:
    return _refuse(f"{name}: this command is now mobilevit {_MOVED[name]}")
  if name not in COMMANDS:
    return _refuse(
      f"no command {name!r}, only {', '.join(COMMANDS)}; mobilevit --help says "
      "what they do"
    )
  if name in arguments.PARSERS:
    # What can't be parsed, and --help, end here, before anything is loaded.
    arguments.PARSERS[name]().parse_args(rest)
  command = COMMANDS[name]
  # Only the module that is asked for is loaded.
  return importlib.import_module(command.module).main([*command.first, *rest])


def usage() -> str:
  """What `mobilevit --help` prints."""
  width = max(map(len, COMMANDS))
  lines = [f"  {n:<{width}}  {row.text}" for n, row in COMMANDS.items()]
  return "\n".join(
    [
      "usage: mobilevit COMMAND [ARGUMENT ...]",
      "       mobilevit COMMAND --help",
      "",
      *lines,
    ]
  )


def _refuse(text: str) -> int:
  print(f"mobilevit: {text}", file=sys.stderr)
  return 2
