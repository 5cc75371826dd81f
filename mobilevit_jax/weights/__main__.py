"""Converts weights between the published dialects.

    mobilevit weights IN OUT --to={jax,timm,hf,cvnets}
    mobilevit weights runs/mine mine --to=hub --push=OWNER/NAME

IN is a `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file, a folder with
`model.safetensors`, `hf://owner/name`, `teaching:NAME`, or a run's workdir. OUT
is a `.safetensors` or `.npz` file, or, with `--to=hf`, a folder. `--to=hub`
writes a folder that both timm and transformers load, with a model card made
from the run's record; nothing leaves this machine without `--push`.
"""

import argparse
from collections.abc import Mapping, Sequence
import sys

import numpy as np

from mobilevit_jax import files
from mobilevit_jax import models
from mobilevit_jax.command import arguments
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.run import stop
from mobilevit_jax.weights import hub
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights.source import FoundWeights
from mobilevit_jax.weights.source import read_weights


@stop.in_one_line("convert", "the output is as it was before")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where nothing was written."""
  args = arguments.weights().parse_args(argv)
  try:
    _convert(args)
  except (ValueError, OSError) as error:
    print(f"weights: {error}", file=sys.stderr)
    return 1
  return 0


def _convert(args: argparse.Namespace) -> None:
  # Variant, head and classes follow from the tensors; nothing is asked.
  files.check_free(args.output, args.force)  # before reading takes its time
  found = read_weights(args.input, which=args.which)
  fields = io.find_model(found)
  model = models.abstract_model(**fields)
  weights = io.decode(found.tensors, model, name=found.name)
  if args.to == "hub":
    _write_hub(args, found, fields["name"], model, weights)
    return
  if args.push or args.license:
    raise ValueError("--push and --license need --to=hub")
  if args.float16:
    weights = _halved(weights)
  options = {"to": args.to, "labels": found.labels, "force": args.force}
  io.write(weights, model, args.output, **options)
  print(
    f"{args.output}: {fields['name']}, {model.head.num_classes} classes, "
    f"{names.detect(found.tensors)} -> {args.to}"
  )


def _write_hub(
  args: argparse.Namespace,
  found: FoundWeights,
  name: str,
  model: models.Net,
  weights: Mapping[str, np.ndarray],
) -> None:
  if args.float16:
    raise ValueError("--float16 is for files, not for --to=hub")
  crop = presets.choose(names.detect(found.tensors), found.crop)
  hub.write(
    weights,
    model,
    found,
    args.output,
    name=name,
    size=crop.size,
    resize=crop.resize,
    bicubic=crop.preset == "timm",
    licence=args.license,
    force=args.force,
  )
  print(f"{args.output}: {name}, {model.head.num_classes} classes, for the Hub")
  if args.push:
    print(hub.push(args.output, args.push))


def _halved(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  # Above 65,504 float16 is infinite.
  """The values as float16; ValueError where one is too large for it."""
  most = float(np.finfo(np.float16).max)
  for path, value in weights.items():
    if np.abs(value).max(initial=0) > most:
      raise ValueError(f"--float16: {path} has values of over {most:g}")
  return {path: value.astype(np.float16) for path, value in weights.items()}


if __name__ == "__main__":
  sys.exit(main())
