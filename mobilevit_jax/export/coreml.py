"""CoreML packages (.mlpackage): built and looked into, not run.

CoreML runs on Apple's systems alone, so here a package's operators, shapes and
ranks are checked, and it says itself that its answers were not compared.
"""

import collections
from collections.abc import Iterator, Mapping
import contextlib
import gc
import io
import pathlib
import tempfile
from typing import Any
import warnings
import zipfile

from mobilevit_jax.export import blocks
from mobilevit_jax.export import contract
from mobilevit_jax.export import coreml_graph
from mobilevit_jax.models.net import Net

_FORBIDDEN = {"cond", "while_loop", "custom_layer"}
METADATA = "mobilevit_jax"  # its key


def build(model: Net, options: contract.Options, metadata: str) -> bytes:
  """A zip of the package, which is a folder, for iOS 16, macOS 13 and later.

  fp16 is CoreML's own: operators compute in float16 too, as the neural engine
  needs. uint8 pixels come as an image, which is what Vision hands over.
  """
  ct = coreml_graph.library()
  pixels = options.input == "uint8"
  b, h, w, c = options.shape
  # CoreML hands images over as [b, 3, h, w].
  shape = (b, c, h, w) if pixels else (b, h, w, c)

  def write(ops: coreml_graph.CoreMLOps, x: Any) -> dict[str, Any]:
    return blocks.write(model, ops, ops.input(x, pixels=pixels), options.output)

  inputs = [ct.ImageType("images", shape)] if pixels else None
  with tempfile.TemporaryDirectory() as name, _quiet():
    folder = pathlib.Path(name)
    package = ct.convert(
      # An ML program, the newer of CoreML's two formats: float16 and typed.
      coreml_graph.program(shape, write),
      inputs=inputs,
      convert_to="mlprogram",
      minimum_deployment_target=ct.target.iOS16,
      compute_precision=_compute_precision(ct, options),
      skip_model_load=True,
      # Else one that stays until this process ends.
      package_dir=str(folder / "first.mlpackage"),
    )
    package.user_defined_metadata[METADATA] = metadata
    path = folder / "net.mlpackage"
    package.save(str(path))
    return _zip(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without progress bars, and without what coremltools leaves behind.

  It opens a temporary folder that nothing closes (9.0, `converters/mil/
  converter.py`), which Python tells as a ResourceWarning when it clears it
  away; here, before anybody else's code runs.
  """
  with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)
    yield
    gc.collect()


def _compute_precision(ct: Any, options: contract.Options) -> Any:
  """Boxes and their scores stay in float32 where the rest is in float16."""
  if options.precision == "fp32":
    return ct.precision.FLOAT32

  # A box's edge in float16 is off by up to half a pixel of 1,000.
  def half(op: Any) -> bool:
    return not any(
      output.name.startswith(("boxes", "scores")) for output in op.outputs
    )

  return ct.transform.FP16ComputePrecision(op_selector=half)


def _zip(folder: pathlib.Path) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    # Sorted, so that the same package gives the same zip.
    for path in sorted(folder.rglob("*")):
      if path.is_file():
        archive.write(path, path.relative_to(folder))
  return buffer.getvalue()


def read(content: bytes) -> Any:
  """The package's specification: Apple's `Model` message."""
  model = coreml_graph.library().proto.Model_pb2.Model()
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    model.ParseFromString(archive.read("Data/com.apple.CoreML/model.mlmodel"))
  return model


def described(document: Mapping[str, Any]) -> dict[str, Any]:
  """A file's document, where CoreML's own types differ from the others'."""
  outputs = {
    # CoreML's outputs are float32 or int32, nothing smaller.
    name: {
      **value,
      "type": "int32" if value["type"] == "uint8" else value["type"],
    }
    for name, value in document.get("outputs", {}).items()
  }
  images = dict(document.get("input", {}))
  if images.get("type") == "uint8":
    images["layout"] = "image"
  return {**document, "input": images, "outputs": outputs}


def metadata(content: bytes) -> str:
  """Our document in a package; empty where there is none."""
  return read(content).description.metadata.userDefined[METADATA]


def inspect(content: bytes) -> contract.Findings:
  """Operators, ranks and the shapes of the outputs."""
  model = read(content)
  (block,) = model.mlProgram.functions["main"].block_specializations.values()
  operators = collections.Counter(op.type for op in block.operations)
  # Weights are operators there, too.
  del operators["const"]
  types = {
    output.name: output.type.tensorType
    for op in block.operations
    for output in op.outputs
  }
  outputs = {
    name: tuple(axis.constant.size for axis in types[name].dimensions)
    for name in block.outputs
  }
  rank = max(each.rank for each in types.values())
  return contract.check_graph(
    contract.Findings(dict(operators), rank, outputs=outputs), _FORBIDDEN
  )


def write(content: bytes, path: pathlib.Path) -> None:
  """Writes the folder."""
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    archive.extractall(path)
