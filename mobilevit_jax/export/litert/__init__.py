"""LiteRT (.tflite) files: built, run by LiteRT with XNNPACK, looked into."""

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from mobilevit_jax.export import blocks
from mobilevit_jax.export import contract
from mobilevit_jax.export import fold_bn
from mobilevit_jax.export.litert import flatbuffer
from mobilevit_jax.export.litert import int8
from mobilevit_jax.export.litert import quantise
from mobilevit_jax.export.litert import writer
from mobilevit_jax.models.net import Net

# Their int8 kernels run outside XNNPACK (`docs/benchmarks/infer.md`).
_SLOW_INT8 = {"HARD_SWISH", "RSQRT", "SOFTMAX", "SQUARED_DIFFERENCE"}
_ERROR_IMAGES = 4  # one file a layer is run on so many
_FORBIDDEN = {"CALL_ONCE", "CUSTOM", "DELEGATE", "IF", "WHILE"}


def net(model: Net, options: contract.Options) -> quantise.Net:
  """What writes the net, input and outputs as the options say."""
  if options.batch is None:
    raise ValueError("--batch=any: a LiteRT file has a fixed batch; give one")

  folded = fold_bn.fold_batch_norms(model)  # once for all that is written

  def write(ops: writer.LiteRTOps) -> dict[str, flatbuffer.Ref]:
    x = ops.input(options.shape, pixels=options.input == "uint8")
    return blocks.write(folded, ops, x, options.output)

  return write


def build(
  model: Net,
  options: contract.Options,
  metadata: str,
  calibration: np.ndarray | None = None,
) -> bytes:
  """The file.

  Args:
    model: with its weights.
    options: of the file.
    metadata: of the file.
    calibration: for int8, images as the file takes them, `[n, h, w, 3]`.

  Raises:
    ValueError: for an open batch, or int8 without calibration.
  """
  write = net(model, options)
  if options.precision == "int8":
    # Ranges of activations come from images; without any there is no grid.
    if calibration is None or not len(calibration):
      raise ValueError("--precision=int8 needs --calibration_images")
    # Image by image, so that it doesn't matter which share a batch.
    single = net(model, dataclasses.replace(options, batch=1))
    ranges = quantise.calibrate(single, calibration)
    select = quantise.not_products if options.attention == "float" else None
    ops = int8.Int8Ops(ranges, select)
  elif options.precision == "int8-dynamic":
    ops = int8.DynamicOps()
  else:
    ops = writer.LiteRTOps(half=options.precision == "fp16")
  return ops.serialize(write(ops), metadata)


def layer_errors(
  model: Net, options: contract.Options, images: np.ndarray
) -> list[quantise.LayerError]:
  # --- Attention's products in float32 cost time, and save accuracy on some
  # nets: an option.
  """What each layer of an int8 file costs by itself, the worst first.

  Args:
    model: with its weights.
    options: of the file.
    images: to calibrate on, as the file takes them; a few of them, evenly
      spread, are those that the outputs are compared on.
  """
  single = net(model, dataclasses.replace(options, batch=1))
  # The same ranges for every layer's file: only the choice of layers differs.
  ranges = quantise.calibrate(single, images)
  some = images[:: max(1, len(images) // _ERROR_IMAGES)][:_ERROR_IMAGES]
  return quantise.layer_errors(single, ranges, some)


def engine(data: bytes, *, threads: int = 1) -> contract.Engine:
  """LiteRT with XNNPACK, with the file; its answers are copies."""
  runner = flatbuffer.interpreter(data, threads).get_signature_runner()
  return lambda images: runner(images=images)


def run(
  data: bytes, images: np.ndarray, options: contract.Options
) -> contract.Outputs:
  """What the engine answers for any number of images."""
  return contract.in_batches(engine(data), images, options.batch)


def metadata(data: bytes) -> str:
  """Our document in a file; empty where there is none."""
  model = read(data)
  for entry in model.metadata or ():
    if entry.name in (b"mobilevit_jax", "mobilevit_jax"):
      return bytes(model.buffers[entry.buffer].data).decode()
  return ""


def read(data: bytes) -> Any:
  """The file as a tree of the schema's objects."""
  schema = flatbuffer.schema()
  return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def inspect(data: bytes) -> contract.Findings:
  """Operators and ranks, and how much of the graph XNNPACK takes."""
  builtin = flatbuffer.schema().BuiltinOperator
  # The generated schema has numbers; people read names.
  names = {code: name for name, code in vars(builtin).items()}
  model = read(data)
  (subgraph,) = model.subgraphs
  codes = [names[code.builtinCode] for code in model.operatorCodes]
  operators = collections.Counter(
    codes[operator.opcodeIndex] for operator in subgraph.operators
  )
  rank = max(len(tensor.shape) for tensor in subgraph.tensors)
  partitions, rest = delegated(data)
  # Every switch between XNNPACK and the built-in kernels costs a copy.
  left = ", ".join(f"{n} {name}" for name, n in sorted(rest.items()))
  note = f"XNNPACK partitions: {partitions}; outside them: {left or 'nothing'}"
  notes = (note, *_notes_on_int8(subgraph, codes))
  return contract.check_graph(
    contract.Findings(dict(operators), rank, notes), _FORBIDDEN
  )


def _notes_on_int8(subgraph: Any, codes: Sequence[str]) -> tuple[str, ...]:
  """What is known to be slow in eight bits, and whether it is there."""
  int8 = flatbuffer.schema().TensorType.INT8
  tensors = subgraph.tensors
  products, shifted, slow = 0, 0, collections.Counter()
  for operator in subgraph.operators:
    code = codes[operator.opcodeIndex]
    kinds = [tensors[i].type for i in (*operator.inputs, *operator.outputs)]
    if code == "BATCH_MATMUL" and int8 in kinds:
      products += 1
      second = tensors[operator.inputs[1]].quantization
      # XNNPACK's int8 batch product needs the second operand's zero point at 0.
      shifted += bool(second.zeroPoint[0])
    if code in _SLOW_INT8 and int8 in kinds:
      slow[code] += 1
  if not any(tensor.type == int8 for tensor in tensors):
    return ()
  names = ", ".join(f"{n} {name}" for name, n in sorted(slow.items()))
  return (
    f"int8 products of attention: {products}, of which {shifted} have a second "
    "operand whose zero isn't at 0 (XNNPACK would not take them)",
    f"operators that are slow in eight bits: {names or 'none'}",
  )


def delegated(data: bytes) -> tuple[int, dict[str, int]]:
  """XNNPACK's partitions of a file, and the kinds of operators outside them.

  The interpreter lists delegated operators too: what runs is what the outputs
  need, where a tensor that a partition gives is taken from there.
  """
  interpreter = flatbuffer.interpreter(data)
  source = {}
  # From the outputs back: whatever isn't reached, doesn't run.
  for node in interpreter._get_ops_details():  # partitions come last
    source |= {int(tensor): node for tensor in node["outputs"]}
  seen: dict[int, dict[str, Any]] = {}
  todo = [detail["index"] for detail in interpreter.get_output_details()]
  while todo:
    node = source.get(todo.pop())
    if node is not None and node["index"] not in seen:
      seen[node["index"]] = node
      todo += [int(tensor) for tensor in node["inputs"]]
  kinds = collections.Counter(node["op_name"] for node in seen.values())
  return kinds.pop("DELEGATE", 0), dict(kinds)
