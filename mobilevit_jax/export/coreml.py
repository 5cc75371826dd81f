"""CoreML packages (.mlpackage): built and looked into, not run.

CoreML runs on Apple's systems alone, so here a package's operators, shapes and
ranks are checked, and it says itself that its answers were not compared.
"""

import collections
import contextlib
import io
import pathlib
import tempfile
from typing import Any
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
  shape = (b, c, h, w) if pixels else (b, h, w, c)

  def write(ops: coreml_graph.CoreMLOps, x: Any) -> dict[str, Any]:
    return blocks.write(model, ops, ops.input(x, pixels=pixels), options.output)

  inputs = [ct.ImageType("images", shape)] if pixels else None
  precision = {"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}
  with contextlib.redirect_stderr(io.StringIO()):  # progress bars
    package = ct.convert(
      coreml_graph.program(shape, write),
      inputs=inputs,
      convert_to="mlprogram",
      minimum_deployment_target=ct.target.iOS16,
      compute_precision=precision[options.precision],
      skip_model_load=True,
    )
  package.user_defined_metadata[METADATA] = metadata
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name) / "net.mlpackage"
    package.save(str(folder))
    return _zip(folder)


def _zip(folder: pathlib.Path) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
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


def inspect(content: bytes) -> contract.Findings:
  """Operators, ranks and the shapes of the outputs."""
  model = read(content)
  (block,) = model.mlProgram.functions["main"].block_specializations.values()
  operators = collections.Counter(op.type for op in block.operations)
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
  rank = max(type.rank for type in types.values())
  return contract.check_graph(
    contract.Findings(dict(operators), rank, outputs=outputs), _FORBIDDEN
  )


def write(content: bytes, path: pathlib.Path) -> None:
  """Writes the folder."""
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    archive.extractall(path)
