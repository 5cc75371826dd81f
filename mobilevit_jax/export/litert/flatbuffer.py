"""A LiteRT (.tflite) file: tensors, constants and operators in a flatbuffer."""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib
from typing import Any

import numpy as np

from mobilevit_jax.export import contract


@dataclasses.dataclass(frozen=True)
class Grid:
  """The numbers that eight bits stand for: `scale * (integer - zero)`."""

  scale: float
  zero: int


@dataclasses.dataclass(frozen=True)
class Ref:
  """A tensor of the graph.

  Attributes:
    index: in the file.
    shape: of the tensor.
    name: unique in the file.
    grid: of an int8 or uint8 activation; None of any other tensor.
  """

  index: int
  shape: tuple[int, ...]
  name: str = ""
  grid: Grid | None = None


def schema() -> Any:
  """The file format's classes, from ai-edge-litert (an extra)."""
  return contract.library(
    "ai_edge_litert.schema_py_generated", "ai-edge-litert", "litert"
  )


def interpreter(data: bytes, threads: int = 1) -> Any:
  """LiteRT's engine for a file; on one thread its answers repeat."""
  module = contract.library(
    "ai_edge_litert.interpreter", "ai-edge-litert", "litert"
  )
  engine = module.Interpreter(model_content=data, num_threads=threads)
  engine.allocate_tensors()
  return engine


class LiteRTFile:
  """Collects one subgraph; `serialize` gives the file.

  Args:
    half: keep weights in float16, half the size; they become float32 again
      before they are used, in the file's own operators.
  """

  def __init__(self, *, half: bool = False):
    self._s = schema()
    self._half = half
    self._buffers = [self._s.BufferT()]  # the first is empty by convention
    self._tensors: list[Any] = []
    self._operators: list[Any] = []
    self._codes: dict[tuple[int, int], int] = {}
    self.results: dict[str, Ref] = {}  # of every operator

  def tensor(
    self,
    shape: Sequence[int],
    kind: str,
    name: str,
    buffer: int = 0,
    grid: Grid | None = None,
  ) -> Ref:
    """A tensor of a type of the schema's `TensorType`."""
    # Everything is the schema's own object tree, which is packed once at the
    # end.
    tensor = self._s.TensorT()
    tensor.shape = [int(n) for n in shape]
    tensor.type = getattr(self._s.TensorType, kind)
    tensor.name, tensor.buffer, tensor.hasRank = name, buffer, True
    if grid is not None:
      tensor.quantization = self._s.QuantizationParametersT()
      tensor.quantization.scale = [grid.scale]
      tensor.quantization.zeroPoint = [grid.zero]
    self._tensors.append(tensor)
    return Ref(len(self._tensors) - 1, tuple(tensor.shape), name, grid)

  def _data(self, content: bytes) -> int:
    buffer = self._s.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    self._buffers.append(buffer)
    return len(self._buffers) - 1

  def constant(self, value: Any, name: str, *, weight: bool = False) -> Ref:
    """A float32 or int32 array; a `weight` may be kept in half."""
    value = np.ascontiguousarray(value)
    # A constant is a tensor with a buffer.
    kinds = {"float32": "FLOAT32", "int32": "INT32", "float16": "FLOAT16"}
    if weight and self._half:
      value = value.astype(np.float16)
    ref = self.tensor(
      value.shape, kinds[value.dtype.name], name, self._data(value.tobytes())
    )
    if weight and self._half:
      return self.op("DEQUANTIZE", [ref], value.shape, f"{name}/float32")
    return ref

  def integers(
    self, value: np.ndarray, scales: np.ndarray, name: str, axis: int = 0
  ) -> Ref:
    """int8 or int32 weights, whose slices along `axis` have `scales`."""
    kinds = {"int8": "INT8", "int32": "INT32"}
    data = self._data(np.ascontiguousarray(value).tobytes())
    ref = self.tensor(value.shape, kinds[value.dtype.name], name, data)
    quantization = self._s.QuantizationParametersT()
    # Per-channel quantisation: a scale for each slice, zero points at 0.
    quantization.scale = [float(scale) for scale in scales]
    quantization.zeroPoint = [0] * len(scales)
    quantization.quantizedDimension = axis
    self._tensors[ref.index].quantization = quantization
    return ref

  def op(
    self,
    code: str,
    inputs: Sequence[Ref],
    shape: Sequence[int],
    name: str,
    options: str | None = None,
    *,
    grid: Grid | None = None,
    kind: str = "FLOAT32",
    **fields: Any,
  ) -> Ref:
    """A builtin operator with one result, and its options.

    Args:
      code: of the schema's `BuiltinOperator`.
      inputs: its operands.
      shape: of the result.
      name: of the result.
      options: of the schema's `BuiltinOptions`.
      grid: of an int8 result; another one has none.
      kind: of the result without a grid, of the schema's `TensorType`.
      **fields: of the options.
    """
    operator = self._s.OperatorT()
    # Operator and version are one entry of the file's table of codes.
    version = self._version(code, inputs, grid)
    number = getattr(self._s.BuiltinOperator, code), version
    operator.opcodeIndex = self._codes.setdefault(number, len(self._codes))
    operator.inputs = [ref.index for ref in inputs]
    if options is not None:
      operator.builtinOptionsType = getattr(self._s.BuiltinOptions, options)
      operator.builtinOptions = getattr(self._s, f"{options}T")()
      for field, value in fields.items():
        setattr(operator.builtinOptions, field, value)
    kind = kind if grid is None else "INT8"
    output = self.tensor(shape, kind, name, grid=grid)
    operator.outputs = [output.index]
    self._operators.append(operator)
    self.results[name] = output
    return output

  def serialize(self, outputs: Mapping[str, Ref], metadata: str) -> bytes:
    """The file: its input is the first tensor; `metadata` under our name."""
    s = self._s
    model, subgraph = s.ModelT(), s.SubGraphT()
    subgraph.tensors, subgraph.operators = self._tensors, self._operators
    subgraph.inputs = [0]
    subgraph.outputs = [ref.index for ref in outputs.values()]
    subgraph.name = "main"
    # Version 3 of the schema, the only one in use.
    model.version, model.description = 3, "mobilevit_jax"
    model.subgraphs = [subgraph]
    model.operatorCodes = [self._code(*code) for code in self._codes]
    # A signature lets engines address inputs and outputs by name.
    signature = s.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [self._entry("images", 0)]
    signature.outputs = [
      self._entry(name, ref.index) for name, ref in outputs.items()
    ]
    model.signatureDefs = [signature]
    entry = s.MetadataT()
    entry.name, entry.buffer = "mobilevit_jax", self._data(metadata.encode())
    model.metadata, model.buffers = [entry], self._buffers
    flatbuffers = importlib.import_module("flatbuffers")
    # "TFL3" at byte 4 is how readers tell the file's kind.
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())

  def _version(
    self, code: str, inputs: Sequence[Ref], grid: Grid | None
  ) -> int:
    """The first version of an operator that has its types."""
    kinds = {self._tensors[ref.index].type for ref in inputs}
    if code == "DEQUANTIZE" and self._s.TensorType.FLOAT16 in kinds:
      return 3
    if self._s.TensorType.INT8 not in kinds:
      return 1
    if grid is None:  # float32 activations, int8 weights
      return {"CONV_2D": 5, "FULLY_CONNECTED": 12, "DEQUANTIZE": 2}[code]
    versions = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5}
    return versions.get(code, 1 if code in ("HARD_SWISH", "RESHAPE") else 2)

  def _code(self, number: int, version: int) -> Any:
    code = self._s.OperatorCodeT()
    code.builtinCode, code.version = number, version
    # Codes above 127 are in the newer field alone; older readers see 127.
    code.deprecatedBuiltinCode = min(number, 127)
    return code

  def _entry(self, name: str, index: int) -> Any:
    entry = self._s.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
