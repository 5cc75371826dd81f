"""Measures speed, and counts code: `python -m benchmarks COMMAND --help`."""

import argparse
from collections.abc import Sequence
import importlib
import json
import pathlib
import sys
from typing import Any

# What is measured, to a line of help. The module of that name in this package
# offers `add_arguments(parser)` and `main(args)`, which returns the lines to
# print and what the file of `--out`, if it has that flag, is to hold. Only the
# one asked for is imported. One that adds `--config` gets what sets fields of
# it, `--config.FIELD=VALUE`, as `args.fields`.
COMMANDS = {
  "input": "images/s of the input pipeline and its stages",
  "train": "steps/s, memory and compile time of a train step",
  "scaling": "when a pod starves, by arithmetic",
  "infer": "latency, file size and memory of inference, engine by engine",
  "ablation": "what makes a net fast or slow on LiteRT, step by step",
  "matrix": "which exports work, built and verified one by one",
  "house": "the layout of the code: lines by folder, what is there twice",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where it can't measure."""
  words = [*(sys.argv[1:] if argv is None else argv)]
  parser = argparse.ArgumentParser(
    # Only the one asked for is imported: some need JAX, some PyTorch.
    prog="python -m benchmarks",
    description="Measures speed on this machine, and counts the code.",
  )
  commands = parser.add_subparsers(metavar="COMMAND", required=True)
  for name, text in COMMANDS.items():
    command = commands.add_parser(name, help=text)
    if words[:1] == [name]:
      module = importlib.import_module(f"benchmarks.{name}")
      module.add_arguments(command)
      command.set_defaults(main=module.main)
  args, args.fields = parser.parse_known_args(words)
  prefix = "--config." if hasattr(args, "config") else "nothing else"
  if unknown := [f for f in args.fields if not f.startswith(prefix)]:
    parser.error(f"unrecognized arguments: {' '.join(unknown)}")
  try:
    out = _check(vars(args))
    lines, result = args.main(args)
    for line in lines:
      print(line)
    if out is not None:
      out.write_text(json.dumps(result, indent=2) + "\n")
    return 0
  except KeyboardInterrupt:
    print("benchmarks: interrupted", file=sys.stderr)
    return 130
  except (ValueError, OSError) as error:
    print(f"benchmarks: {error}", file=sys.stderr)
    return 1


def _check(flags: dict[str, Any]) -> pathlib.Path | None:
  """Refuses numbers and paths that no command can take; the path of `--out`."""
  for name, value in flags.items():
    least = 0 if name == "num_workers" else 1
    # bool is an int in Python: flags that are switches are left alone.
    if type(value) is int and value < least:
      raise ValueError(f"--{name}={value} must be at least {least}")
  out = flags.get("out")
  if out is not None and not out.absolute().parent.is_dir():
    raise ValueError(f"--out={out}: its folder doesn't exist")
  return out


if __name__ == "__main__":
  sys.exit(main())
