r"""Exports a net to a file that runs on phones, in browsers and elsewhere.

    python -m mobilevit_jax.export --weights=SOURCE --format=litert \
      --out=s.tflite

The file is run in its own engine and compared with JAX before it is written;
one that differs is not written, and the exit code is 1.
"""

import argparse
from collections.abc import Sequence
import sys

import numpy as np

from mobilevit_jax import files
from mobilevit_jax import models
from mobilevit_jax.command import arguments
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import blocks
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import litert
from mobilevit_jax.export import metadata
from mobilevit_jax.export import verify
from mobilevit_jax.run import stop
from mobilevit_jax.weights import io
from mobilevit_jax.weights import labels as labels_lib
from mobilevit_jax.weights import names
from mobilevit_jax.weights import source as source_lib


@stop.in_one_line("export", "the file is as it was before")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where nothing was written."""
  args = arguments.export().parse_args(argv)
  try:
    _export(args)
  except (ValueError, OSError) as error:
    print(f"export: {error}", file=sys.stderr)
    return 1
  return 0


def _export(args: argparse.Namespace) -> None:
  format = formats.FORMATS[args.format]
  if (args.calibration_images is not None) != (args.precision == "int8"):
    raise ValueError(
      "--precision=int8 needs --calibration_images, and nothing else does"
    )
  if args.layer_errors < 0:
    raise ValueError(f"--layer_errors={args.layer_errors} must be from 0 up")
  if args.out.suffix != format.suffix:
    raise ValueError(f"--out={args.out} must end in {format.suffix}")
  files.check_free(args.out, args.force)  # before anything takes its time
  found = source_lib.read(args.weights, which=args.which)
  fields = io.find_model(found)
  stride = args.output_stride or fields.get("output_stride", 32)
  model = io.build_model(
    found,
    variant=args.variant,
    dtype="float32",
    depthwise="auto",
    output_stride=stride,
  )
  if (head := models.head_of(model)) not in blocks.HEADS:
    raise ValueError(
      f"{args.weights} has the head {head!r}, and files are written of "
      f"{', '.join(blocks.HEADS)}"
    )
  dialect = names.detect(found.tensors)
  crop = presets.choose(dialect, found.crop, preset=args.preset, size=args.size)
  usual = next(iter(model.head.OUTPUTS))  # of a classifier, logits
  options = contract.Options(
    precision=args.precision,
    size=crop.size,
    batch=_batch(args.batch, format),
    input=args.input,
    output="features" if args.features else args.output or usual,
    **({} if args.attention is None else {"attention": args.attention}),
  )
  formats.check_options(args.format, options, model)
  labels = None
  if not args.features:
    count = model.head.num_classes
    labels = labels_lib.class_names(args.labels, found, count)
  images, calibration = _images(args, crop)
  name = fields["name"]
  document = metadata.describe(
    model,
    options,
    crop,
    name=name,
    found=found,
    labels=labels,
    output_stride=stride,
  )
  result = formats.export(
    model, args.format, options, document, images, calibration
  )
  with files.whole(args.out, force=args.force) as temporary:
    format.write(result.content, temporary)
  print(f"{args.out}: {name}, {options.size} px, {args.format}", end=" ")
  print(f"{options.precision}, {len(result.content) / 1e6:.2f} MB")
  print(f"  crop: shorter side {crop.resize} px, centre {crop.size} px", end="")
  print(f" ({crop.preset})")
  _report(result, options)
  if args.layer_errors and calibration is not None:
    inputs = verify.as_input(calibration, options)
    errors = litert.layer_errors(model, options, inputs)
    print("  error of the outputs with one layer alone in eight bits:")
    for item in errors[: args.layer_errors]:
      print(f"  {item.error:8.5f}  {item.layer}")


def _images(
  args: argparse.Namespace, crop: presets.Crop
) -> tuple[np.ndarray, np.ndarray | None]:
  """What to compare the file on, and what to calibrate it on."""
  calibration = None
  if args.calibration_images is not None:
    calibration = verify.read_images(args.calibration_images, crop)
  if args.verify_images is not None:
    images = verify.read_images(args.verify_images, crop)
  elif calibration is not None:
    images = calibration
  else:
    images = verify.built_in_images(crop.size)
  return images, calibration


def _batch(text: str | None, format: formats.Format) -> int | None:
  if text is None:
    return None if format.open_batch else 1
  if text == "any":
    return None
  if not text.isdecimal():
    raise ValueError(f"--batch={text} must be a number, or 'any'")
  return int(text)


def _report(result: formats.Export, options: contract.Options) -> None:
  findings, comparison = result.findings, result.comparison
  counts = sorted(findings.operators.items(), key=lambda item: -item[1])
  print("  operators: " + ", ".join(f"{n} {name}" for name, n in counts))
  for note in (f"most axes of a tensor: {findings.rank}", *findings.notes):
    print(f"  {note}")
  if comparison is None:
    print(
      "  NOT VERIFIED: operators, shapes and ranks are checked, answers are "
      "not, since the format can't be run here"
    )
    return
  allowed = verify.TOLERANCE.get(options.precision)
  line = f"largest difference from JAX: {comparison.difference:.2g}"
  if allowed is not None:
    line += f" (allowed: {allowed:g})"
  print(
    f"  {line}; same class: {comparison.agreement:.1%} of "
    f"{comparison.images} images"
  )


if __name__ == "__main__":
  sys.exit(main())
