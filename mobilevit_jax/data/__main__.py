"""Prepares TFDS image sets as ArrayRecord files, which training reads.

    python -m mobilevit_jax.data prepare NAME --manual_dir=TARS --data_dir=OUT
    python -m mobilevit_jax.data convert OLD/NAME/VERSION --data_dir=OUT
    python -m mobilevit_jax.data verify OUT/NAME/VERSION --sample=all
    python -m mobilevit_jax.data check --data=folder --data_dir=PHOTOS
    python -m mobilevit_jax.data show CONFIG --config.data.dir=PHOTOS

`prepare`, which may be left out, downloads what is free, takes the rest from
`--manual_dir` (for imagenet2012 the two official archives), and leaves a
finished set alone. Interrupted, it starts anew, but for what it downloaded.
`convert` turns a set of TFRecord files into one of ArrayRecord files; started
again, it keeps the files that it finished. `verify` counts the records of a
prepared set, decodes a sample of its images, and names what is broken. `check`
reads every image of a set that training can read, and says whether it can be
learnt from: classes, copies, broken and tiny images. `show` draws training
images as the net is given them, augmented.
"""

import argparse
from collections.abc import Callable, Sequence
import math
import pathlib
import sys
from typing import Any

from mobilevit_jax import files
from mobilevit_jax.config import need
from mobilevit_jax.config import read_config
from mobilevit_jax.run import stop

_COMMANDS = ("prepare", "convert", "verify", "check", "show")


# Of TFDS: they need the extra that has it.
_TFDS_COMMANDS = ("prepare", "convert", "verify")


@stop.in_one_line("data", "what was finished is whole")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 for a set that isn't sound."""
  words = [*(sys.argv[1:] if argv is None else argv)]
  # The first form of the command had no subcommands: a set's name alone still
  # prepares it.
  if words and words[0] not in (*_COMMANDS, "-h", "--help"):
    words.insert(0, "prepare")
  # Fields of a configuration (--config.FIELD=VALUE) are unknown to argparse,
  # and are passed on by `show` alone.
  parser = _parser()
  args, args.fields = parser.parse_known_args(words)
  known = "--config." if args.run is _show else "nothing"
  if unknown := [word for word in args.fields if not word.startswith(known)]:
    parser.error(f"unrecognized arguments: {' '.join(unknown)}")
  try:
    if words[0] in _TFDS_COMMANDS:
      need("tensorflow_datasets", "tfds", f"data {words[0]}")
    return args.run(args)
  except (ValueError, OSError) as error:
    print(f"data: {files.printable(str(error))}", file=sys.stderr)
    return 1


def _prepare(args: argparse.Namespace) -> int:
  # Imported late, as it takes seconds: --help need not wait.
  from mobilevit_jax.data.prepare import download
  from mobilevit_jax.data.sources import tfds as tfds_source

  if args.num_shards is not None and args.num_shards < 1:
    raise ValueError(f"--num_shards={args.num_shards} must be at least 1")
  builder = tfds_source.make_builder(args.name, args.data_dir)
  # Before the download: a set without images and labels is of no use here.
  download.check_features(args.name, builder.info.features)
  for folder, size in download.leftovers(builder.data_path):
    what = f"{folder}, {download.gigabytes(size)}"
    if args.remove_leftovers:
      print(f"removing what an earlier run left: {what}", flush=True)
      folder.rmtree()
    else:
      print(
        f"left by a run that was killed, or in use by one at work: {what}; "
        "--remove_leftovers removes it",
        flush=True,
      )
  if not builder.is_prepared():
    download.prepare_set(
      args.name,
      builder,
      manual_dir=args.manual_dir,
      num_shards=args.num_shards,
    )
  for name, split in builder.info.splits.items():
    # Opening is the test: it refuses files without random access.
    source = tfds_source.open_prepared(args.name, name, builder.data_path)
    print(
      f"{builder.data_path}: {name}, {len(source)} images "
      f"in {split.num_shards} files"
    )
  return 0


def _convert(args: argparse.Namespace) -> int:
  from mobilevit_jax.data.prepare import convert

  print(convert.convert(args.source, args.data_dir))
  return 0


def _verify(args: argparse.Namespace) -> int:
  from mobilevit_jax.data.check import verify

  faults = 0
  for found in verify.verify(args.path, sample=args.sample):
    for fault in found.faults:
      print(files.printable(f"broken: {fault}"))
    print(
      f"{found.split}: {found.num_images} images in {found.num_files} files, "
      f"{found.num_decoded} decoded, {len(found.faults)} broken",
      flush=True,
    )
    faults += len(found.faults)
  return 1 if faults else 0


def _check(args: argparse.Namespace) -> int:
  from mobilevit_jax.data import boxes
  from mobilevit_jax.data import check
  from mobilevit_jax.data import sources

  if args.size is not None and args.size < 1:
    raise ValueError(f"--size={args.size} must be at least 1")
  own = dict.fromkeys(sources.SOURCES, "val") | {"digits": "test"}
  usual = own.get(args.data, "validation")
  names = (args.train_split or "train", args.eval_split or usual)
  if names[0] == names[1]:
    raise ValueError(
      f"--eval_split={names[1]} must differ from --train_split: accuracy on "
      "images that were trained on does not measure anything"
    )
  splits = {
    name: sources.make_source(
      args.data, name, data_dir=args.data_dir, prepare=False
    )
    for name in names
  }
  size, fits = args.size, None
  # Detection sets: what an anchor can match is part of the check.
  if all(isinstance(source, boxes.Boxed) for source in splits.values()):
    # Which boxes a net can match is known to the task, with JAX and all.
    from mobilevit_jax import experiment

    kind = experiment.TASKS["detect"]
    task: Any = kind.make(None, 1)
    size, fits = size or kind.size, task.fits
  report = check.check_splits(splits, size=size, progress=True, fits=fits)
  print("\n".join(map(files.printable, report.lines())))
  if refusal := report.refusal():
    raise ValueError(refusal)
  return 0


def _show(args: argparse.Namespace) -> int:
  # What a configuration describes, with JAX and all: this module is a door.
  from PIL import Image

  from mobilevit_jax import experiment

  if args.images < 1:
    raise ValueError(f"--images={args.images} must be at least 1")
  config = read_config(args.config, args.fields)
  # In this process: a sheet of images needs no worker to be started.
  config.data.num_workers = 0
  run = experiment.build(config)
  if not 0 <= args.step < run.plan.num_steps:
    raise ValueError(
      f"--step={args.step} must be from 0 to {run.plan.num_steps - 1}"
    )
  names, pictures = run.source.class_names, []
  with run.batches(args.step) as batches:
    for batch in batches:
      for place in range(len(batch["ids"])):
        row = {name: array[place] for name, array in batch.items()}
        # The task draws its own truth, so that this works for masks and boxes
        # too.
        truth = run.task.truth(row, names)
        picture = run.task.draw(row["images"], truth, names)
        pictures.append(Image.fromarray(picture))
      if len(pictures) >= args.images:
        break
  del pictures[args.images :]
  # Pictures may differ in size, by their legends; each has a cell of the
  # largest.
  side = max(max(picture.size) for picture in pictures) + 4
  columns = math.ceil(len(pictures) ** 0.5)
  rows = math.ceil(len(pictures) / columns)
  sheet = Image.new("RGB", (columns * side, rows * side), "white")
  for index, picture in enumerate(pictures):
    sheet.paste(picture, (index % columns * side, index // columns * side))
  with files.whole(args.out, force=args.force) as part:
    sheet.save(part)
  print(f"{args.out}: {len(pictures)} images from step {args.step} on")
  return 0


def _sample(text: str) -> int | None:
  """`--sample`: None is all."""
  if text == "all":
    return None
  if not text.isdecimal():
    raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 or all")
  return int(text)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="mobilevit data",
    description="Prepares image sets, and looks for what is wrong with them.",
  )
  commands = parser.add_subparsers(required=True)

  def command(name: str, run: Callable[..., int], text: str) -> Any:
    made = commands.add_parser(name, help=text)
    made.set_defaults(run=run)
    return made.add_argument

  archives = "archives downloaded by hand; default: DATA_DIR/downloads/manual"
  add = command("prepare", _prepare, "the default: NAME alone")
  add("name", metavar="NAME", help="such as imagenet2012")
  add("--data_dir", help="default: TFDS's own choice")
  add("--manual_dir", help=archives)
  add("--num_shards", type=int, help="files for each split")
  text = "delete what killed runs left of the same set"
  add("--remove_leftovers", action="store_true", help=text)
  add = command("convert", _convert, "TFRecord to ArrayRecord")
  add("source", metavar="OLD/NAME/VERSION")
  add("--data_dir", required=True)
  add = command("verify", _verify, "look for what is broken")
  add("path", metavar="OUT/NAME/VERSION")
  text = "images of each split to decode, or all; default: %(default)s"
  add("--sample", type=_sample, default=1000, help=text)
  add = command("check", _check, "can it be learnt from?")
  add("--data", default="folder", help="folder, digits or a TFDS name")
  add("--data_dir", help="the folder; where TFDS keeps its sets")
  add("--train_split", help="default: train")
  text = "default: val; test of digits, validation of TFDS"
  add("--eval_split", help=text)
  add("--size", type=int, help="the least size to train at, in pixels")
  add = command("show", _show, "a sheet of what the net is given")
  text = "and --config.FIELD=VALUE, as for training"
  add("config", metavar="CONFIG", help=text)
  add("--out", type=pathlib.Path, default=pathlib.Path("sheet.png"))
  add("--images", type=int, default=36)
  add("--step", type=int, default=0, help="of the run, from 0")
  add("--force", action="store_true", help="replace OUT")
  return parser


if __name__ == "__main__":
  sys.exit(main())
