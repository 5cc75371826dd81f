r"""Exports a net to a file that runs on phones, in browsers and elsewhere.

    python -m mobilevit_jax.export --weights=SOURCE --format=litert \
      --out=s.tflite

The file is run in its own engine and compared with JAX before it is written;
one that differs is not written, and the exit code is 1.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import math
import sys
from typing import Any

import numpy as np

from mobilevit_jax import experiment
from mobilevit_jax import files
from mobilevit_jax import models
from mobilevit_jax.command import arguments
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import blocks
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import litert
from mobilevit_jax.export import metadata
from mobilevit_jax.export import nms
from mobilevit_jax.export import verify
from mobilevit_jax.export import views
from mobilevit_jax.run import stop
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights.labels import find_class_names
from mobilevit_jax.weights.source import FoundWeights
from mobilevit_jax.weights.source import read_weights

_COMPARED = 64  # images of the calibration that are compared with JAX


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
  # --- What can be refused by the flags alone.
  row = formats.FORMATS[args.format]
  if args.calibration_images is not None and args.precision != "int8":
    raise ValueError("--calibration_images is for --precision=int8 alone")
  if args.layer_errors < 0:
    raise ValueError(f"--layer_errors={args.layer_errors} must be from 0 up")
  if args.out.suffix != row.suffix:
    raise ValueError(f"--out={args.out} must end in {row.suffix}")
  files.check_free(args.out, args.force)  # before anything takes its time
  # --- The net and its weights.
  found = read_weights(args.weights, which=args.which)
  fields = io.find_model(found)
  more: dict[str, Any] = {}
  if args.output_stride is not None:
    more["output_stride"] = args.output_stride
  model = io.build_model(
    found, variant=args.variant, dtype="float32", depthwise="auto", **more
  )
  if (head := models.head_of(model)) not in blocks.HEADS:
    raise ValueError(
      f"{args.weights} has the head {head!r}, and files are written of "
      f"{', '.join(blocks.HEADS)}"
    )
  # --- How images are prepared, and what the file answers.
  task = experiment.task_of(head)
  view = _view(args, found, experiment.TASKS[task])
  usual = next(iter(model.head.OUTPUTS))  # of a classifier, logits
  suppression = None
  if "boxes" in model.head.OUTPUTS:
    suppression = _suppression(found)
  options = contract.Options(
    precision=args.precision,
    size=view.size,
    batch=_batch(args.batch, row),
    input=args.input,
    output="features" if args.features else args.output or usual,
    nms=(suppression or nms.Suppression()) if args.nms else None,
    **({} if args.attention is None else {"attention": args.attention}),
  )
  formats.check_options(args.format, options, model)
  labels = None
  if not args.features:
    count = model.head.num_classes
    labels = find_class_names(args.labels, found, count)
  # --- Images: to compare on, and to find ranges on.
  images, calibration, of_run = _images(args, found, view)
  name = fields["name"]
  document = metadata.describe(
    model,
    options,
    view.preprocessing(),
    task=task,
    name=name,
    found=found,
    labels=labels,
    nms=suppression,
    output_stride=model.backbone.output_stride,
  )
  # --- Build, run, compare: nothing is written unless it agrees.
  result = formats.export(
    model, args.format, options, document, images, calibration
  )
  # --- Only now a file appears, whole.
  with files.whole(args.out, force=args.force) as temporary:
    row.write(result.content, temporary)
  print(f"{args.out}: {name}, {options.size} px, {args.format}", end=" ")
  print(f"{options.precision}, {len(result.content) / 1e6:.2f} MB")
  print(f"  {_preparation(view.preprocessing())}")
  # A remark: numbers of the file and of the run are of different crops.
  protocol = ((found.config or {}).get("task") or {}).get("protocol", "stretch")
  if protocol != "stretch":
    print(f"  (the run was evaluated with protocol={protocol!r}, which has")
    print("  images of many shapes; a file has one)")
  if calibration is not None:
    whose = "the run's training set" if of_run else "--calibration_images"
    print(f"  calibrated on {len(calibration)} images of {whose}")
  _report(result, options)
  if args.layer_errors and calibration is not None:
    inputs = verify.as_input(calibration, options)
    errors = litert.layer_errors(model, options, inputs)
    print("  error of the outputs with one layer alone in eight bits:")
    for item in errors[: args.layer_errors]:
      print(f"  {item.error:8.5f}  {item.layer}")


def _view(
  args: argparse.Namespace,
  found: FoundWeights,
  kind: experiment.TaskKind,
) -> views.View:
  """How the run's own evaluation shows images, or as the flags say."""
  size = args.size
  # Published weights have the task's usual size, runs their own.
  if size is None and not found.crop:
    size = kind.size
  # The names of the tensors say who trained them, and so how images were
  # cropped.
  dialect = names.detect(found.tensors)
  crop = presets.choose(dialect, found.crop, preset=args.preset, size=size)
  fields = kind.view(crop)
  if args.preset is not None and not fields:
    raise ValueError(
      f"--preset={args.preset} is a classifier's crop; here images are "
      "stretched to a square"
    )
  return views.View(kind.transform(**fields), crop.size)


def _suppression(found: FoundWeights) -> nms.Suppression:
  """As the run evaluates, or as we do by default."""
  # Of a run's fields those that suppression has; published weights have no run.
  own = (found.config or {}).get("task") or {}
  known = {field.name for field in dataclasses.fields(nms.Suppression)}
  return nms.Suppression(**{k: v for k, v in own.items() if k in known})


def _images(
  args: argparse.Namespace, found: FoundWeights, view: views.View
) -> tuple[np.ndarray, np.ndarray | None, bool]:
  """What to compare the file on, what to calibrate it on, and if a run's."""
  calibration, of_run = None, False
  if args.calibration_images is not None:
    calibration = view.of_files(args.calibration_images)
  elif args.precision == "int8":
    # Ranges of activations are those of images like the training's.
    of_run = True
    calibration = view.of_source(views.training_source(found))
  if args.verify_images is not None:
    images = view.of_files(args.verify_images)
  elif calibration is not None:
    # A segmenter takes a second an image, in JAX and in its engine.
    images = calibration[:: math.ceil(len(calibration) / _COMPARED)]
  else:
    images = verify.built_in_images(view.size)
  return images, calibration, of_run


def _preparation(how: Mapping[str, Any]) -> str:
  """A line for a person on the metadata's `preprocessing`."""
  if how["resize"] == "crop":
    return (
      f"crop: shorter side {how['shorter_side']} px, centre {how['size']} px "
      f"({how['preset']})"
    )
  return f"images are stretched to {how['size']} x {how['size']} px"


def _batch(text: str | None, row: formats.Format) -> int | None:
  if text is None:
    return None if row.open_batch else 1
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
  # Eight bits have no tolerance of numbers, only of answers.
  allowed = verify.TOLERANCE.get(options.precision)
  line = f"largest difference from JAX: {comparison.difference:.2g}"
  if allowed is not None:
    line += f" (allowed: {allowed:g})"
  boxes = options.output == "boxes"
  what = "same class and place of boxes" if boxes else "same class"
  print(
    f"  {line}; {what}: {comparison.agreement:.1%} of "
    f"{comparison.images} images"
  )


if __name__ == "__main__":
  sys.exit(main())
