"""The heads' graphs, from the backbone's maps to the outputs by name."""

from collections.abc import Mapping
import functools
from typing import Any

from mobilevit_jax.export import contract
from mobilevit_jax.export import graph
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models.heads import classifier
from mobilevit_jax.models.heads import deeplabv3


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


@write.register
def _deeplabv3(
  head: deeplabv3.DeepLabV3, ops: Ops, maps: Mapping[str, Tensor], output: str
) -> dict[str, Tensor]:
  x = maps["stage5"]
  h, w = ops.size(x)
  y = graph.write(head.aspp.branches[0], ops, x, "aspp/0")
  for index, branch in enumerate(head.aspp.branches[1:], 1):
    other = graph.write(branch, ops, x, f"aspp/{index}")
    y = ops.concat(y, other, f"aspp/concat/{index}")
  channels = graph.array(head.aspp.pool.conv.kernel).shape[2]
  mean = ops.pool(x, "aspp/pool/mean")
  mean = ops.reshape(mean, (-1, 1, 1, channels), "aspp/pool/rows")
  mean = graph.write(
    head.aspp.pool, ops, ops.map(mean, "aspp/pool/map"), "aspp/pool"
  )
  # Every engine can resize, and the one pixel is then all of them.
  mean = ops.resize(mean, h, w, "aspp/pool/resize")
  y = ops.concat(y, mean, "aspp/concat/pool")
  y = graph.write(head.aspp.project, ops, y, "aspp/project")
  kernel, bias = graph.affine(head.classifier)
  y = ops.conv(y, kernel[None, None], bias, "classifier")
  size = h * head.output_stride, w * head.output_stride
  y = ops.resize(y, *size, "classifier/resize", align_corners=head.aligned)
  if output == "mask":
    return {output: ops.mask(y, "classifier/mask")}
  return {output: ops.rows(y, "classifier/rows")}
