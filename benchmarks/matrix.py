"""Prints which exports work: format, precision, variant, size.

    python -m benchmarks matrix

Every file is built and verified as `python -m mobilevit_jax.export` does, and
thrown away. The nets have random weights and are asked about coloured squares,
which shows whether a graph is right; what eight bits cost a trained net,
`python -m mobilevit_jax.export.accuracy` says.
"""

import argparse
import functools
from typing import Any

import numpy as np

from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import metadata
from mobilevit_jax.export import verify

SIZES = (192, 224, 256, 320)  # pixels; 224 has odd maps
_BACKBONE = 256, 16  # size and output stride that the stages are tried at


@functools.cache
def _model(name: str, output_stride: int) -> Any:
  model = models.abstract_model(name, output_stride=output_stride)
  return random_weights.randomize(model)


@functools.cache
def _answers(name: str, size: int, output_stride: int, output: str) -> Any:
  model, images = _model(name, output_stride), verify.built_in_images(size)
  options = contract.Options(size=size, output=output)
  return verify.answers_of_jax(model, images, options)


def try_export(
  kind: str, name: str, options: contract.Options, output_stride: int = 32
) -> tuple[str, int | None]:
  # Random weights of a fixed seed: a cell is the same at every call.
  """A cell of the table, and the file's size in bytes where there is one."""
  model, crop = _model(name, output_stride), presets.Crop(size=options.size)
  images = verify.built_in_images(options.size)
  try:
    result = formats.export(
      model,
      kind,
      options,
      metadata.describe(
        model, options, crop.preprocessing(), task="classify", name=name
      ),
      images,
      # Others than those that are compared.
      verify.built_in_images(options.size, seed=1)
      if options.precision == "int8"
      else None,
      _answers(name, options.size, output_stride, options.output),
    )
  # A format that can't hold the net says so by a ValueError: a cell, too.
  except ValueError as error:
    return f"no: {error}", None
  if result.comparison is None:
    return "not run", len(result.content)
  return f"{result.comparison.difference:.0e}", len(result.content)


def _spread(name: str) -> str:
  """How far logits of different images are apart: what a cell is beside."""
  logits = _answers(name, _BACKBONE[0], 32, "logits")["logits"]
  return f"{np.mean(np.std(logits, axis=0)):.0e}"


def _row(kind: str, precision: contract.Precision, name: str) -> list[str]:
  open_batch = formats.FORMATS[kind].open_batch
  # An open batch where the format has it: the harder case.
  make = functools.partial(
    contract.Options, precision, batch=None if open_batch else 1
  )
  cells = [try_export(kind, name, make(size=size)) for size in SIZES]
  size, output_stride = _BACKBONE
  backbone = make(size=size, output="features")
  cells.append(try_export(kind, name, backbone, output_stride))
  sizes = [count for _, count in cells[:-1] if count is not None]
  largest = f"{np.max(sizes) / 1e6:.2f}" if sizes else ""
  row = [kind, precision, models.short_name(name), largest, _spread(name)]
  return [*row, *(cell for cell, _ in cells)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The command's flags."""
  all_of = {
    "formats": [*formats.FORMATS],
    "variants": [*models.VARIANTS],
    "precisions": [*contract.PRECISIONS],
  }
  for name, every in all_of.items():
    parser.add_argument(f"--{name}", nargs="+", choices=every, default=every)


def main(args: argparse.Namespace) -> tuple[list[str], None]:
  """Prints a Markdown table, row by row; ValueError if an export fails."""
  size, output_stride = _BACKBONE
  header = ["format", "precision", "variant", "MB", "spread"]
  header += [f"{size} px" for size in SIZES]
  header.append(f"stages, {size} px, stride {output_stride}")
  print("| " + " | ".join(header) + " |")
  print("|" + "---|" * len(header))
  failed = 0
  for kind in args.formats:
    for precision in formats.FORMATS[kind].precisions:
      for name in args.variants if precision in args.precisions else ():
        row = _row(kind, precision, name)
        failed += sum(cell.startswith("no:") for cell in row)
        print("| " + " | ".join(row) + " |", flush=True)
  if failed:
    raise ValueError(f"{failed} exports do not work")
  return [], None
