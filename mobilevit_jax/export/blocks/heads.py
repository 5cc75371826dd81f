"""The heads' graphs, from the backbone's maps to the outputs by name."""

from collections.abc import Mapping
import functools
from typing import Any

from mobilevit_jax.export import contract
from mobilevit_jax.export import graph
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models.heads import classifier


@functools.singledispatch
def write(
  head: Any, ops: Ops, maps: Mapping[str, Tensor], output: str
) -> dict[str, Tensor]:
  """Writes a head.

  Args:
    head: with its weights, its BatchNorms folded.
    ops: writer of a format.
    maps: of the backbone's parts.
    output: one of the head's `OUTPUTS`.

  Returns:
    The file's outputs by name.

  Raises:
    ExportError: for a class that isn't registered.
  """
  raise contract.ExportError(f"there is no writer of a {type(head).__name__}")


@write.register
def _classifier(
  head: classifier.Classifier, ops: Ops, maps: Mapping[str, Tensor], output: str
) -> dict[str, Tensor]:
  x = maps["stage5"]
  if "expand" in head.LAYERS:
    x = graph.write(head.expand, ops, x, "head")
  x = graph.write(head.classifier, ops, ops.pool(x, "pool"), "classifier")
  if output == "probabilities":
    x = ops.softmax(x, "classifier/softmax")
  return {output: x}
