"""The heads' graphs, from the backbone's maps to the outputs by name."""

from collections.abc import Mapping
import functools
from typing import Any

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export import graph
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models.heads import classifier
from mobilevit_jax.models.heads import deeplabv3
from mobilevit_jax.models.heads import ssdlite


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
  # Sizes are known when the file is written, also for an open batch.
  h, w = ops.size(x)
  y = graph.write(head.aspp.branches[0], ops, x, "aspp/0")
  for index, branch in enumerate(head.aspp.branches[1:], 1):
    other = graph.write(branch, ops, x, f"aspp/{index}")
    # Two at a time: the writers' `concat` takes two maps.
    y = ops.concat(y, other, f"aspp/concat/{index}")
  mean = _mean(ops, x, head.aspp.pool.conv, "aspp/pool")
  mean = graph.write(head.aspp.pool, ops, mean, "aspp/pool")
  # Every engine can resize, and the one pixel is then all of them.
  mean = ops.resize(mean, h, w, "aspp/pool/resize")
  y = ops.concat(y, mean, "aspp/concat/pool")
  y = graph.write(head.aspp.project, ops, y, "aspp/project")
  # A 1x1 convolution is a matrix [in, out]; the writer wants [1, 1, in, out].
  kernel, bias = graph.affine(head.classifier)
  y = ops.conv(y, kernel[None, None], bias, "classifier")
  size = h * head.output_stride, w * head.output_stride
  y = ops.resize(y, *size, "classifier/resize", align_corners=head.aligned)
  if output == "mask":
    return {output: ops.mask(y, "classifier/mask")}
  return {output: ops.rows(y, "classifier/rows")}


def _mean(ops: Ops, x: Tensor, conv: Any, name: str) -> Tensor:
  """The mean of a map, as a map of one pixel for a convolution."""
  channels = graph.array(conv.kernel).shape[2]
  mean = ops.reshape(
    ops.pool(x, f"{name}/mean"), (-1, 1, 1, channels), f"{name}/rows"
  )
  return ops.map(mean, f"{name}/map")


# The output that a part of a level's prediction goes to.
_ROOM = {"centres": "boxes", "sides": "boxes", "classes": "scores"}


@write.register
def _ssdlite(
  head: ssdlite.SSDLite, ops: Ops, maps: Mapping[str, Tensor], output: str
) -> dict[str, Tensor]:
  """Boxes are decoded and scores normalised in float32 in every format.

  The one convolution of a level is written as three, so that nothing has to be
  cut apart: of centres, sides and classes. The variances lie in their weights.
  """
  del output  # there is one
  x = maps["stage5"]
  levels = [maps["stage4"], x]
  for index, layer in enumerate(head.extra):
    x = graph.write(layer, ops, x, f"extra/{index}")
    levels.append(x)
  # A map of one pixel: the last level.
  x = _mean(ops, x, head.pool, "pool")
  levels.append(ops.relu(graph.write(head.pool, ops, x, "pool"), "pool/relu"))
  # Before the filters, which keep the size.
  sizes = [ops.size(level) for level in levels]
  for index, layer in enumerate(head.filters):
    levels[index] = graph.write(layer, ops, levels[index], f"filters/{index}")
  parts = {
    "centres": (slice(0, 2), ssdlite.CENTER_VARIANCE),
    "sides": (slice(2, 4), ssdlite.SIZE_VARIANCE),
    "classes": (slice(4, None), 1.0),
  }
  rows: dict[str, list[Tensor]] = {part: [] for part in parts}
  # 4 offsets and the classes, background included, as in `ssdlite.SSDLite`.
  width = 4 + head.num_classes + 1
  for index, (level, (h, w)) in enumerate(zip(levels, sizes, strict=True)):
    # Columns of one kernel: each part is a convolution over the same input, so
    # three of them compute what the one did.
    kernel, bias = graph.affine(head.predict[index])
    for part, (columns, scale) in parts.items():
      own, offset = (
        a.reshape(*a.shape[:-1], -1, width)[..., columns] * np.float32(scale)
        for a in (kernel, bias)
      )
      _, anchors, last = own.shape
      own = own.reshape(1, 1, len(kernel), -1)
      y = ops.conv(level, own, offset.ravel(), f"predict/{index}/{part}/conv")
      name = f"{_ROOM[part]}/{part}/{index}"
      # [b, cells x anchors, 4 or classes], in the order of `ssdlite.anchors`.
      shape = (-1, h * w * anchors, last)
      rows[part].append(ops.reshape(ops.rows(y, f"{name}/map"), shape, name))
  joined = {}
  for part, (first, *rest) in rows.items():
    name = f"{_ROOM[part]}/{part}"
    # XNNPACK joins five at most, and the first is the largest.
    joined[part] = ops.join(
      [first, ops.join(rest, 1, f"{name}/coarse")], 1, name
    )
  return _decode(ops, ssdlite.anchors(sizes), **joined)


def _decode(
  ops: Ops, anchors: np.ndarray, centres: Tensor, sides: Tensor, classes: Tensor
) -> dict[str, Tensor]:
  """`ssdlite.decode`, and softmax without the background."""
  place, size = anchors[:, :2], anchors[:, 2:]
  # c = t a_wh + a_c; the variance 0.1 is in the weights already.
  centres = ops.affine(centres, size, place, "boxes/centre")
  # Corners are centre - half and centre + half: both halves at once.
  centres = ops.join([centres, centres], 2, "boxes/centre_twice")
  sides = ops.exp(sides, "boxes/exp")
  # Half a side to the left and up, half to the right and down.
  sides = ops.join([sides, sides], 2, "boxes/exp_twice")
  half = np.concatenate([-size / 2, size / 2], axis=1)
  sides = ops.affine(sides, half, None, "boxes/half")
  scores = ops.softmax(classes, "scores/softmax")
  return {
    "boxes": ops.add(centres, sides, "boxes/corners"),
    "scores": ops.tail(scores, "scores/objects"),
  }


@graph.write.register
def _separable(
  module: ssdlite.Separable, ops: Ops, x: Tensor, name: str
) -> Tensor:
  x = graph.write_depthwise(module, ops, x, f"{name}/depthwise")
  return graph.write(module.pointwise, ops, x, f"{name}/pointwise")


@graph.write.register
def _filter(module: ssdlite.Filter, ops: Ops, x: Tensor, name: str) -> Tensor:
  if module.projected:
    x = graph.write(module.project, ops, x, f"{name}/project")
  return graph.write_depthwise(module, ops, x, f"{name}/depthwise")
