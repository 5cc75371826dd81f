"""The file formats, and the way from a model to a verified file."""

from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any

import numpy as np

from mobilevit_jax import models
from mobilevit_jax.export import contract
from mobilevit_jax.export import coreml
from mobilevit_jax.export import litert
from mobilevit_jax.export import metadata
from mobilevit_jax.export import onnx
from mobilevit_jax.export import stablehlo
from mobilevit_jax.export import verify
from mobilevit_jax.models.net import Net


@dataclasses.dataclass(frozen=True)
class Format:
  """One row of `FORMATS`.

  Attributes:
    suffix: of its files.
    build: a model, options and metadata, and for int8 images to calibrate on,
      to a file's content.
    run: content, images and options to outputs, in the format's own engine;
      None where that can't run here.
    inspect: looks into the content; raises ExportError for what mustn't be.
    metadata: the document in a file's content, empty where there is none.
    engine: content to what answers any number of images, in this process; None
      as of `run`.
    open_batch: whether the number of images can be left open.
    precisions: that it can be written in.
    nms: whether a file can suppress overlapping boxes by itself.
    write: writes the content at a path.
  """

  suffix: str
  build: Callable[..., bytes]
  run: Callable[[bytes, np.ndarray, contract.Options], contract.Outputs] | None
  inspect: Callable[[bytes], contract.Findings]
  metadata: Callable[[bytes], str]
  engine: Callable[[bytes], contract.Engine] | None
  open_batch: bool = False
  precisions: tuple[contract.Precision, ...] = ("fp32", "fp16")
  nms: bool = False
  write: Callable[[bytes, pathlib.Path], object] = lambda content, path: (
    path.write_bytes(content)
  )


# A new format is a row here; CONTRIBUTING.md goes through the steps.
FORMATS = {
  "stablehlo": Format(
    ".zip",
    stablehlo.build,
    stablehlo.run,
    stablehlo.inspect,
    stablehlo.metadata,
    stablehlo.engine,
    open_batch=True,
  ),
  "litert": Format(
    ".tflite",
    litert.build,
    litert.run,
    litert.inspect,
    litert.metadata,
    litert.engine,
    precisions=contract.PRECISIONS,
  ),
  "onnx": Format(
    ".onnx",
    onnx.build,
    onnx.run,
    onnx.inspect,
    onnx.metadata,
    onnx.engine,
    open_batch=True,
    nms=True,
  ),
  "coreml": Format(
    ".mlpackage",
    coreml.build,
    None,
    coreml.inspect,
    coreml.metadata,
    None,
    write=coreml.write,
  ),
}


@dataclasses.dataclass(frozen=True)
class Export:
  """A file's content, seen and compared.

  Attributes:
    content: to be written.
    findings: of a look into it.
    comparison: with the model in JAX; None where the format can't be run.
  """

  content: bytes
  findings: contract.Findings
  comparison: verify.Comparison | None


def check_options(name: str, options: contract.Options, model: Net) -> None:
  """Raises ValueError for what the format `name` has no files of."""
  row = FORMATS[name]
  # --- Options that this format has no files for, with the formats that do.
  if options.precision not in row.precisions:
    having = [
      n for n, f in FORMATS.items() if options.precision in f.precisions
    ]
    raise ValueError(
      f"--precision={options.precision} needs --format={' or '.join(having)}, "
      f"not {name}"
    )
  if options.batch is None and not row.open_batch:
    raise ValueError(f"--batch=any: the batch of {name} files is fixed")
  if options.batch is not None and options.batch < 1:
    raise ValueError(f"--batch={options.batch} must be at least 1, or 'any'")
  if options.nms is not None:
    if options.output != "boxes":
      raise ValueError("--nms is for detectors' boxes, and this file has none")
    if not row.nms:
      having = [n for n, f in FORMATS.items() if f.nms]
      raise ValueError(
        f"--nms needs --format={' or '.join(having)}; beside a file of {name} "
        "run mobilevit_jax/export/nms.py"
      )
  # --- Options that no net has.
  smallest = models.family_of(model).smallest
  if options.size < smallest:
    raise ValueError(f"--size={options.size} must be at least {smallest}")
  stride = getattr(model.head, "output_stride", 1)
  if options.size % stride:
    raise ValueError(
      f"--size={options.size} must be a multiple of the net's stride, {stride}"
    )
  outputs = (*model.head.OUTPUTS, "features")
  if options.output not in outputs:
    raise ValueError(
      f"--output={options.output} must be one of {', '.join(outputs)}"
    )


def export(
  model: Net,
  name: str,
  options: contract.Options,
  document: dict[str, Any],
  images: np.ndarray,
  calibration: np.ndarray | None = None,
  expected: contract.Outputs | None = None,
) -> Export:
  """A file's content, verified.

  Args:
    model: with its weights; it is run in JAX as it is.
    name: a key of `FORMATS`.
    options: of the file.
    document: its metadata, from `metadata.describe`.
    images: to compare the file with JAX on, uint8 `[n, size, size, 3]`.
    calibration: for int8, a few hundred images of the training set, likewise.
    expected: JAX's answers, where they are known already.

  Raises:
    ExportError: if the file isn't as it must be, or answers otherwise than JAX.
    ValueError: for options that the format doesn't have, or a missing package.
  """
  check_options(name, options, model)
  row = FORMATS[name]
  document = document | {"file": name, "verified": row.run is not None}
  if name == "coreml":
    document = coreml.described(document)
  more = []
  if calibration is not None:
    more = [verify.as_input(calibration, options)]
  # --- Build, look into it, run it, compare: in this order, as each step is
  # dearer than the one before.
  content = row.build(model, options, metadata.dumps(document), *more)
  findings = row.inspect(content)
  # CoreML can't be run here, so shapes are all there is to check.
  if findings.outputs is not None:
    verify.check_shapes(model, findings.outputs, options)
  if row.run is None:
    return Export(content, findings, None)
  found = row.run(content, verify.as_input(images, options), options)
  if expected is None:
    expected = verify.answers_of_jax(model, images, options)
  comparison = verify.compare(model, found, expected, options)
  verify.check(comparison, options)
  return Export(content, findings, comparison)
