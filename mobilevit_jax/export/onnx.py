"""ONNX files: built, run by onnxruntime, looked into."""

import collections

import numpy as np

from mobilevit_jax.export import blocks
from mobilevit_jax.export import contract
from mobilevit_jax.export import onnx_graph
from mobilevit_jax.models.net import Net

_FORBIDDEN = {"If", "Loop", "Scan", "SequenceMap"}


def build(model: Net, options: contract.Options, metadata: str) -> bytes:
  """The file; raises ValueError for a precision that ONNX files don't have."""
  ops = onnx_graph.OnnxOps(
    half=options.precision == "fp16", batch=options.batch
  )
  x = ops.input(options.shape, pixels=options.input == "uint8")
  outputs = blocks.write(model, ops, x, options.output)
  if options.nms is not None:
    outputs = ops.suppress(**outputs, how=options.nms, name="nms")
  return ops.serialize(outputs, metadata)


def engine(data: bytes, *, threads: int = 1) -> contract.Engine:
  """The engine on a CPU, with the file."""
  onnxruntime = contract.library("onnxruntime", "onnxruntime", "onnx")
  settings = onnxruntime.SessionOptions()
  # One thread by default: latencies are compared so.
  settings.intra_op_num_threads = threads
  session = onnxruntime.InferenceSession(
    data, settings, providers=["CPUExecutionProvider"]
  )
  names = [output.name for output in session.get_outputs()]

  def answer(images: np.ndarray) -> contract.Outputs:
    results = session.run(names, {"images": images})
    return dict(zip(names, results, strict=True))

  return answer


def run(
  data: bytes, images: np.ndarray, options: contract.Options
) -> contract.Outputs:
  """What the engine answers for any number of images."""
  return contract.in_batches(engine(data), images, options.batch)


def metadata(data: bytes) -> str:
  """Our document in a file; empty where there is none."""
  model = onnx_graph.library().load_from_string(data)
  entries = {entry.key: entry.value for entry in model.metadata_props}
  return entries.get("mobilevit_jax", "")


def inspect(data: bytes) -> contract.Findings:
  """Operators and ranks."""
  # Shape inference fills in the ranks of all intermediate tensors.
  onnx = onnx_graph.library()
  model = onnx.shape_inference.infer_shapes(
    onnx.load_from_string(data), strict_mode=True
  )
  operators = collections.Counter(
    f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    for node in model.graph.node
  )
  rank = max(
    len(value.type.tensor_type.shape.dim) for value in model.graph.value_info
  )
  # Operators of other domains need a library that users may lack.
  foreign = {name for name in operators if "::" in name}
  return contract.check_graph(
    contract.Findings(dict(operators), rank), _FORBIDDEN | foreign
  )
