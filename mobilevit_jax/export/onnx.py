"""ONNX files: built, run by onnxruntime, looked into."""

import collections
from typing import Any

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export import graph
from mobilevit_jax.export import onnx_graph
from mobilevit_jax.models import mobilevit

_FORBIDDEN = {"If", "Loop", "Scan", "SequenceMap"}


def build(
  model: mobilevit.MobileViT, options: contract.Options, metadata: str
) -> bytes:
  """The file; raises ValueError for a precision that can't be had."""
  ops = onnx_graph.OnnxOps(
    half=options.precision == "fp16", batch=options.batch
  )
  x = ops.input(options.shape, pixels=options.input == "uint8")
  outputs = graph.write(
    model,
    ops,
    x,
    features=options.output == "features",
    probabilities=options.output == "probabilities",
  )
  return ops.serialize(outputs, metadata)


def _session(data: bytes) -> Any:
  onnxruntime = contract.library("onnxruntime", "onnxruntime", "onnx")
  settings = onnxruntime.SessionOptions()
  settings.intra_op_num_threads = 1
  return onnxruntime.InferenceSession(
    data, settings, providers=["CPUExecutionProvider"]
  )


def run(
  data: bytes, images: np.ndarray, options: contract.Options
) -> contract.Outputs:
  """What the engine answers for any number of images."""
  session = _session(data)
  names = [output.name for output in session.get_outputs()]

  def batch(images: np.ndarray) -> contract.Outputs:
    results = session.run(names, {"images": images})
    return dict(zip(names, results, strict=True))

  return contract.in_batches(batch, images, options.batch)


def inspect(data: bytes) -> contract.Findings:
  """Operators and ranks."""
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
  foreign = {name for name in operators if "::" in name}
  return contract.check_graph(
    contract.Findings(dict(operators), rank), _FORBIDDEN | foreign
  )
