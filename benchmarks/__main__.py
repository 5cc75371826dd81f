"""Measures speed, and counts code: `python -m benchmarks COMMAND --help`."""

import argparse
from collections.abc import Sequence
import importlib
import sys

# What is measured, to a line of help. The module of that name in this package
# offers `add_arguments(parser)` and `main(args) -> int`, its exit code. Only
# the one asked for is imported. One that adds `--config` gets what sets fields
# of it, `--config.FIELD=VALUE`, as `args.fields`.
COMMANDS = {
  "input": "images/s of the input pipeline and its stages",
  "train": "steps/s, memory and compile time of a train step",
  "scaling": "when a pod starves, by arithmetic",
  "infer": "latency, file size and memory of inference, engine by engine",
  "ablation": "what makes a net fast or slow on LiteRT, step by step",
  "house": "the layout of the code: lines by folder, what is there twice",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where it can't measure."""
  words = [*(sys.argv[1:] if argv is None else argv)]
  parser = argparse.ArgumentParser(
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
    return args.main(args)
  except KeyboardInterrupt:
    print("benchmarks: interrupted", file=sys.stderr)
    return 130
  except (ValueError, OSError) as error:
    print(f"benchmarks: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
  sys.exit(main())
