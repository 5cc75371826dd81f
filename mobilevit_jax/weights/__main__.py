"""Converts weights between the published dialects.

    python -m mobilevit_jax.weights IN OUT --to={jax,timm,hf,cvnets}

IN is a `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file, a folder with
`model.safetensors`, `hf://owner/name`, or a run's workdir. OUT is a
`.safetensors` or `.npz` file, or, with `--to=hf`, a folder.
"""

import argparse
from collections.abc import Sequence
import sys

from mobilevit_jax import files
from mobilevit_jax import models
from mobilevit_jax.command import arguments
from mobilevit_jax.run import stop
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights import source as source_lib


@stop.in_one_line("convert", "the output is as it was before")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where nothing was written."""
  args = arguments.weights().parse_args(argv)
  try:
    _convert(args)
  except (ValueError, OSError) as error:
    print(f"convert: {error}", file=sys.stderr)
    return 1
  return 0


def _convert(args: argparse.Namespace) -> None:
  files.check_free(args.output, args.force)  # before reading takes its time
  found = source_lib.read(args.input, which=args.which)
  fields = io.find_model(found)
  model = models.abstract_model(**fields)
  weights = io.decode(found.tensors, model, name=found.name)
  options = {"to": args.to, "labels": found.labels, "force": args.force}
  io.write(weights, model, args.output, **options)
  print(
    f"{args.output}: {fields['name']}, {model.head.num_classes} classes, "
    f"{names.detect(found.tensors)} -> {args.to}"
  )


if __name__ == "__main__":
  sys.exit(main())
