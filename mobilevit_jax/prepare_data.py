"""Prepares TFDS image sets as ArrayRecord files, which training reads.

    python -m mobilevit_jax.prepare_data NAME --manual_dir=TARS --data_dir=OUT
    python -m mobilevit_jax.prepare_data convert OLD/NAME/VERSION --data_dir=OUT

The first downloads what is free, takes the rest from `--manual_dir` (for
imagenet2012 the two official archives), and leaves a finished set alone. The
second turns a set of TFRecord files into one of ArrayRecord files.
"""

import argparse
from collections.abc import Sequence
import sys

_COMMANDS = ("prepare", "convert")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where a set is not there in whole."""
  words = [*(sys.argv[1:] if argv is None else argv)]
  if words and words[0] not in (*_COMMANDS, "-h", "--help"):
    words.insert(0, "prepare")
  args = _parser().parse_args(words)
  try:
    args.run(args)
  except KeyboardInterrupt:
    print("prepare_data: interrupted", file=sys.stderr)
    return 130
  except (ValueError, OSError) as error:
    print(f"prepare_data: {error}", file=sys.stderr)
    return 1
  return 0


def _prepare(args: argparse.Namespace) -> None:
  # Imported late, as it takes seconds: --help need not wait.
  from mobilevit_jax.data import tfds_source

  if args.num_shards is not None and args.num_shards < 1:
    raise ValueError(f"--num_shards={args.num_shards} must be at least 1")
  builder = tfds_source.make_builder(args.name, args.data_dir)
  tfds_source.check_features(args.name, builder.info.features)
  if not builder.is_prepared():
    tfds_source.prepare_set(
      args.name,
      builder,
      manual_dir=args.manual_dir,
      num_shards=args.num_shards,
    )
  for split in builder.info.splits:
    # Opening is the test: it refuses files without random access.
    source = tfds_source.open_prepared(args.name, split, builder.data_path)
    print(f"{builder.data_path}: {split}, {len(source)} images")


def _convert(args: argparse.Namespace) -> None:
  from mobilevit_jax.data import tfds_convert

  print(tfds_convert.convert(args.source, args.data_dir))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mobilevit_jax.prepare_data",
    description="Prepares TFDS image sets as ArrayRecord files.",
  )
  commands = parser.add_subparsers(required=True)
  prepare = commands.add_parser("prepare", help="the default: NAME alone")
  prepare.set_defaults(run=_prepare)
  prepare.add_argument("name", metavar="NAME", help="such as imagenet2012")
  prepare.add_argument("--data_dir", help="default: TFDS's own choice")
  prepare.add_argument(
    "--manual_dir",
    help="archives downloaded by hand; default: DATA_DIR/downloads/manual",
  )
  prepare.add_argument("--num_shards", type=int, help="files for each split")
  convert = commands.add_parser("convert", help="TFRecord to ArrayRecord")
  convert.set_defaults(run=_convert)
  convert.add_argument("source", metavar="OLD/NAME/VERSION")
  convert.add_argument("--data_dir", required=True)
  return parser


if __name__ == "__main__":
  sys.exit(main())
