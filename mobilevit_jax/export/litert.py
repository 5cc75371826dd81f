"""LiteRT (.tflite) files: built, run by LiteRT with XNNPACK, looked into."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export import graph
from mobilevit_jax.export import litert_file
from mobilevit_jax.export import litert_graph
from mobilevit_jax.models import mobilevit

_FORBIDDEN = {"CALL_ONCE", "CUSTOM", "DELEGATE", "IF", "WHILE"}


def build(
  model: mobilevit.MobileViT, options: contract.Options, metadata: str
) -> bytes:
  """The file; raises ValueError for a precision that can't be had."""
  if options.precision in ("int8", "int8-dynamic"):
    raise ValueError(f"--precision={options.precision} is not available yet")
  if options.batch is None:
    raise ValueError("--batch=any: a LiteRT file has a fixed batch; give one")
  ops = litert_graph.LiteRTOps(half=options.precision == "fp16")
  x = ops.input(options.shape, pixels=options.input == "uint8")
  outputs = graph.write(
    model,
    ops,
    x,
    features=options.output == "features",
    probabilities=options.output == "probabilities",
  )
  return ops.serialize(outputs, metadata)


def _interpreter(data: bytes) -> Any:
  module = contract.library(
    "ai_edge_litert.interpreter", "ai-edge-litert", "litert"
  )
  interpreter = module.Interpreter(model_content=data, num_threads=1)
  interpreter.allocate_tensors()
  return interpreter


def run(
  data: bytes, images: np.ndarray, options: contract.Options
) -> contract.Outputs:
  """What the engine answers for any number of images."""
  runner = _interpreter(data).get_signature_runner()
  return contract.in_batches(
    lambda batch: runner(images=batch), images, options.batch
  )


def read(data: bytes) -> Any:
  """The file as a tree of the schema's objects."""
  schema = litert_file.schema()
  return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def inspect(data: bytes) -> contract.Findings:
  """Operators and ranks, and how much of the graph XNNPACK takes."""
  builtin = litert_file.schema().BuiltinOperator
  names = {code: name for name, code in vars(builtin).items()}
  model = read(data)
  (subgraph,) = model.subgraphs
  codes = [names[code.builtinCode] for code in model.operatorCodes]
  operators = collections.Counter(
    codes[operator.opcodeIndex] for operator in subgraph.operators
  )
  rank = max(len(tensor.shape) for tensor in subgraph.tensors)
  interpreter = _interpreter(data)
  partitions, rest = _executed(
    interpreter._get_ops_details(), list(subgraph.outputs)
  )
  left = ", ".join(f"{n} {name}" for name, n in sorted(rest.items()))
  note = f"XNNPACK partitions: {partitions}; outside them: {left or 'nothing'}"
  return contract.check_graph(
    contract.Findings(dict(operators), rank, (note,)), _FORBIDDEN
  )


def _executed(
  details: Sequence[dict[str, Any]], outputs: list[int]
) -> tuple[int, dict[str, int]]:
  """Delegated partitions, and the kinds of the operators outside them.

  The details list delegated operators too: what runs is what the outputs
  need, where a tensor that a partition gives is taken from there.
  """
  source = {}
  for node in details:  # partitions come last
    source |= {int(tensor): node for tensor in node["outputs"]}
  seen: dict[int, dict[str, Any]] = {}
  todo = list(outputs)
  while todo:
    node = source.get(todo.pop())
    if node is not None and node["index"] not in seen:
      seen[node["index"]] = node
      todo += [int(tensor) for tensor in node["inputs"]]
  kinds = collections.Counter(node["op_name"] for node in seen.values())
  return kinds.pop("DELEGATE", 0), dict(kinds)
