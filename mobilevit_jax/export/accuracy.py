"""Prints what eight bits cost: top-1 of LiteRT files beside float32's.

    python -m mobilevit_jax.export.accuracy --weights=WORKDIR --data=digits

Calibrates on images of the training split and counts on the held-out one.
"""

import argparse
from collections.abc import Sequence
import json
import sys
from typing import Any

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import contract
from mobilevit_jax.export import litert
from mobilevit_jax.export import verify
from mobilevit_jax.export.litert import quantise
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights import source as source_lib

Row = dict[str, Any]
# Files to compare; the first is what the others are held against.
_FILES: dict[str, tuple[contract.Precision, contract.Attention]] = {
  "fp32": ("fp32", "float"),
  "int8, attention int8": ("int8", "int8"),
  "int8, attention float": ("int8", "float"),
  "int8-dynamic": ("int8-dynamic", "float"),
}
_EVAL_SPLITS = {"digits": "test", "folder": "val"}


def load_images(
  source: examples.Source, count: int | None, crop: presets.Crop
) -> tuple[np.ndarray, np.ndarray]:
  """`count` images spread evenly over the source, or all, and their labels.

  Returns:
    uint8 `[n, size, size, 3]` and int32 `[n]`.
  """
  total = len(source)
  count = min(count or total, total)
  ids = np.arange(count) * total // count
  batches = pipeline.eval_batches(
    sources.Subset(source, ids, source.name),
    classify.ClassifyTransform(
      preset=crop.preset, resize_size=crop.resize_size
    ),
    size=crop.size,
    batch=count,
  )
  with batches:
    batch = next(batches)
  return batch["images"], batch["labels"]


def compare(
  model: Any,
  size: int,
  calibration: np.ndarray,
  images: np.ndarray,
  labels: np.ndarray,
) -> list[Row]:
  """A row a file: its name, size in bytes, top-1 and distance from float32.

  `same` is the share of images that keep float32's class, `error` the relative
  error of the logits; the images are uint8.
  """
  rows, exact = [], None
  for name, (precision, attention) in _FILES.items():
    options = contract.Options(precision, size=size, attention=attention)
    data = litert.build(
      model, options, "", verify.as_input(calibration, options)
    )
    inputs = verify.as_input(images, options)
    logits = litert.run(data, inputs, options)["logits"]
    exact = logits if exact is None else exact
    classes = np.argmax(logits, -1)
    rows.append(
      {
        "file": name,
        "bytes": len(data),
        "top1": float(np.mean(classes == labels)),
        "same": float(np.mean(classes == np.argmax(exact, -1))),
        "error": quantise.relative_error(logits, exact),
      }
    )
  return rows


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = _parser().parse_args(argv)
  try:
    _main(args)
  except (ValueError, OSError) as error:
    print(f"accuracy: {error}", file=sys.stderr)
    return 1
  return 0


def _main(args: argparse.Namespace) -> None:
  for name in ("calibration", "images"):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise ValueError(f"--{name}={value} must be at least 1")
  found = source_lib.read(args.weights, which=args.which)
  model = io.build_model(found, dtype="float32")
  dialect = names.detect(found.tensors)
  crop = presets.choose(dialect, found.crop, preset=args.preset, size=args.size)
  split = args.eval_split or _EVAL_SPLITS.get(args.data, "validation")
  train, held_out = (
    sources.make_source(args.data, part, data_dir=args.data_dir, prepare=False)
    for part in (args.train_split, split)
  )
  calibration, _ = load_images(train, args.calibration, crop)
  images, labels = load_images(held_out, args.images, crop)
  rows = compare(model, crop.size, calibration, images, labels)
  errors: list[quantise.LayerError] = []
  if args.layers:
    options = contract.Options("int8", size=crop.size)
    inputs = verify.as_input(calibration, options)
    errors = litert.layer_errors(model, options, inputs)
  if args.json:
    layers = {item.layer: item.error for item in errors}
    print(json.dumps({"files": rows, "layers": layers}, indent=1))
    return
  print(f"{len(images)} images of {held_out.name} at {crop.size} px, ", end="")
  print(f"calibrated on {len(calibration)} of {train.name}")
  print(f"{'LiteRT file':<22} {'MB':>6} {'top-1':>7} {'same':>7} {'error':>7}")
  for row in rows:
    print(
      f"{row['file']:<22} {row['bytes'] / 1e6:6.2f} {row['top1']:7.2%} "
      f"{row['same']:7.2%} {row['error']:7.4f}"
    )
  if errors:
    print("\nerror of the logits with one layer alone in int8, the worst first")
  for item in errors[: args.layers]:
    print(f"  {item.error:8.5f}  {item.layer}")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mobilevit_jax.export.accuracy",
    description="Prints the top-1 of int8 LiteRT files beside float32's.",
  )
  add = parser.add_argument
  add("--weights", required=True, help="file, folder, hf://owner/name, workdir")
  add("--which", choices=source_lib.WHICH, default="auto")
  add("--data", required=True, help="digits, folder, or a TFDS name")
  add("--data_dir", help="the folder, or where TFDS sets lie")
  add("--train_split", default="train", help="to calibrate on")
  add("--eval_split", help="to count on")
  add("--size", type=int, help="image side in pixels")
  add("--preset", choices=presets.PRESETS)
  add("--calibration", type=int, default=256, help="how many images")
  add("--images", type=int, help="how many; by default all")
  add("--layers", type=int, default=0, help="print so many of the worst layers")
  add("--json", action="store_true")
  return parser


if __name__ == "__main__":
  sys.exit(main())
