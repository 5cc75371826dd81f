"""Writes ONNX graphs, operator by operator, for any batch or a fixed one.

Maps are `[b, c, h, w]` inside, ONNX's own order; images come in and feature
maps go out as `[b, h, w, c]`, as in every other format.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export import nms
from mobilevit_jax.export.ops import ChannelsFirst

# Opset 18 is what onnxruntime has had since 1.14, the first with
# reductions whose axes are inputs.
OPSET = 18
_IR_VERSION = 9
BATCH = "batch"


@dataclasses.dataclass(frozen=True)
class Ref:
  """A tensor of the graph; the extent of its first axis is left open."""

  name: str
  shape: tuple[int, ...]


def library() -> Any:
  """The package onnx (an extra)."""
  return contract.library("onnx", "onnx", "onnx")


class OnnxOps(ChannelsFirst):
  """Collects a graph; `serialize` gives the file.

  Args:
    half: keep weights in float16, half the size; a Cast makes them float32
      again, which engines do once, when they load the file.
    batch: images at a time; None leaves it open.
  """

  def __init__(self, *, half: bool = False, batch: int | None = None):
    self._onnx = library()
    self._half = half
    self._batch = batch or BATCH
    self._nodes: list[Any] = []
    self._constants: dict[str, Any] = {}
    self._inputs: list[Any] = []
    self._kinds: dict[str, Any] = {}  # of outputs that aren't float32

  def _constant(self, value: Any, name: str, *, weight: bool = False) -> str:
    value = np.ascontiguousarray(value)
    if weight and self._half:
      half = self._constant(value.astype(np.float16), f"{name}/half")
      to = self._onnx.TensorProto.FLOAT
      self._op("Cast", [half], value.shape, name, to=to)
    elif name not in self._constants:
      self._constants[name] = self._onnx.numpy_helper.from_array(value, name)
    return name

  def _op(
    self,
    kind: str,
    inputs: Sequence[Ref | str],
    shape: Sequence[int],
    name: str,
    **attributes: Any,
  ) -> Ref:
    names = [x.name if isinstance(x, Ref) else x for x in inputs]
    # Named after its result, so that profilers and errors can be read.
    node = self._onnx.helper.make_node(
      kind, names, [name], name=name, **attributes
    )
    self._nodes.append(node)
    return Ref(name, tuple(shape))

  def input(self, shape: Sequence[int], *, pixels: bool = False) -> Ref:
    """Images: float32 in [0, 1], or uint8 `pixels` that become that."""
    proto = self._onnx.TensorProto
    kind = proto.UINT8 if pixels else proto.FLOAT
    self._inputs.append(
      self._onnx.helper.make_tensor_value_info(
        "images", kind, (self._batch, *shape[1:])
      )
    )
    x = Ref("images", tuple(shape))
    if pixels:
      x = self._op("Cast", [x], shape, "preprocess/cast", to=proto.FLOAT)
      scale = self._constant(np.float32(1 / 255), "preprocess/scale")
      x = self._op("Mul", [x, scale], shape, "preprocess/images")
    return self.map(x, "preprocess/map")

  def conv(
    self, x, kernel, bias, name, *, stride=1, dilation=1, groups=1, relu6=False
  ):
    """Conv with symmetric pads, and Clip for ReLU6."""
    kh, kw, _, out = kernel.shape
    weights = self._constant(
      # ONNX: [out, in / groups, kh, kw].
      kernel.transpose(3, 2, 0, 1),
      f"{name}/kernel",
      weight=True,
    )
    inputs = [x, weights]
    if bias is not None:
      inputs.append(self._constant(np.float32(bias), f"{name}/bias"))
    pads = [dilation * (kh // 2), dilation * (kw // 2)]
    b, _, *size = x.shape
    size = [(n - 1) // stride + 1 for n in size]
    shape = (b, out, *size)
    y = self._op(
      "Conv",
      inputs,
      shape,
      f"{name}/product" if relu6 else name,
      kernel_shape=[kh, kw],
      strides=[stride, stride],
      dilations=[dilation, dilation],
      pads=pads * 2,
      group=groups,
    )
    if not relu6:
      return y
    bounds = [self._constant(np.float32(n), f"relu6/{n}") for n in (0, 6)]
    return self._op("Clip", [y, *bounds], shape, name)

  def linear(self, x, kernel, bias, name):
    """Gemm for `[b, d]`; MatMul and Add for more axes."""
    weights = self._constant(kernel, f"{name}/kernel", weight=True)
    offsets = self._constant(np.float32(bias), f"{name}/bias")
    shape = (*x.shape[:-1], kernel.shape[1])
    # Gemm is for two axes only.
    if len(shape) == 2:
      return self._op("Gemm", [x, weights, offsets], shape, name)
    y = self._op("MatMul", [x, weights], shape, f"{name}/product")
    return self._op("Add", [y, offsets], shape, name)

  def silu(self, x, name):
    """Sigmoid and Mul, which engines fuse."""
    gate = self._op("Sigmoid", [x], x.shape, f"{name}/sigmoid")
    return self._op("Mul", [x, gate], x.shape, name)

  def relu(self, x, name):
    """Relu, of any rank."""
    return self._op("Relu", [x], x.shape, name)

  def hard_swish(self, x, name):
    """HardSwish."""
    return self._op("HardSwish", [x], x.shape, name)

  def hard_sigmoid(self, x, name):
    """HardSigmoid of slope 1 / 6, and not its default 0.2."""
    return self._op("HardSigmoid", [x], x.shape, name, alpha=1 / 6, beta=0.5)

  def scale(self, x, gate, name):
    """Mul of a map `[b, c, h, w]` by its gate, broadcast over h and w."""
    gate = self.reshape(gate, (-1, x.shape[1], 1, 1), f"{name}/columns")
    return self._op("Mul", [x, gate], x.shape, name)

  def add(self, x, y, name):
    """Add of two tensors of one shape."""
    return self._op("Add", [x, y], x.shape, name)

  def mul(self, x, y, name):
    """Mul; y may broadcast over x."""
    return self._op("Mul", [x, y], x.shape, name)

  def concat(self, x, y, name):
    """Concat of the channels, axis 1."""
    b, c, *size = x.shape
    shape = (b, c + y.shape[1], *size)
    return self._op("Concat", [x, y], shape, name, axis=1)

  def resize(self, x, h, w, name, *, align_corners=False):
    """Resize to `[b, c, h, w]`, by scales."""
    centres = "align_corners" if align_corners else "half_pixel"
    # Scales for all four axes, as the batch may be open. (With sizes for two of
    # them by `axes`, onnxruntime 1.32 mixes the axes up where it moves a
    # transposition past the node, and refuses the file.)
    scales = [1.0, 1.0, _scale(x.shape[2], h), _scale(x.shape[3], w)]
    factors = self._constant(np.array(scales, np.float32), f"{name}/scales")
    return self._op(
      "Resize",
      [x, "", factors],
      (*x.shape[:2], h, w),
      name,
      mode="linear",
      coordinate_transformation_mode=centres,
    )

  def mask(self, x, name):
    """ArgMax over channels, `[b, h, w]`, cast to uint8."""
    b, _, h, w = x.shape
    shape = (b, h, w)
    y = self._op("ArgMax", [x], shape, f"{name}/index", axis=1, keepdims=0)
    to = self._kinds[name] = self._onnx.TensorProto.UINT8
    return self._op("Cast", [y], shape, name, to=to)

  def join(self, parts, axis, name):
    """Concat along any axis."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return self._op("Concat", parts, shape, name, axis=axis)

  def exp(self, x, name):
    """Exp."""
    return self._op("Exp", [x], x.shape, name)

  def affine(self, x, scale, shift, name):
    """Mul and Add by constants `[1, ...]`, broadcast over the batch."""
    for kind, part, value in (("Mul", "scale", scale), ("Add", "shift", shift)):
      if value is not None:
        values = self._constant(
          np.asarray(value, np.float32)[None], f"{name}/{part}"
        )
        last = name if part == "shift" or shift is None else f"{name}/product"
        x = self._op(kind, [x, values], x.shape, last)
    return x

  def tail(self, x, name):
    """Slice from place 1 of the last axis."""
    b, n, k = x.shape
    ends = [
      self._constant(np.array([value], np.int64), f"{name}/{part}")
      for part, value in (("begin", 1), ("end", k), ("axis", 2))
    ]
    return self._op("Slice", [x, *ends], (b, n, k - 1), name)

  def suppress(
    self, boxes: Ref, scores: Ref, how: nms.Suppression, name: str
  ) -> dict[str, Ref]:
    """The detections of boxes `[b, n, 4]` and scores `[b, n, k]`.

    As `nms.suppress` gives them, in fixed shapes: of those after the last the
    score is 0. `NonMaxSuppression` sees each class of each image as an image of
    its own, because its candidates are that class's surest.

    Returns:
      `boxes` `[b, most, 4]`, `scores` and `classes` (int32) `[b, most]`.
    """
    b, n, k = scores.shape
    top, most = min(how.per_class, n), how.most
    most = min(most, k * top)

    def number(value: Any, label: str) -> str:
      return self._constant(np.asarray(value), f"{name}/{label}")

    # --- Candidates: the `per_class` surest of each class.
    by_class = self.transpose(scores, (0, 2, 1), f"{name}/by_class")
    (best, place) = self._top(by_class, top, (b, k, top), f"{name}/candidates")
    # --- Their boxes: each class of each image has a list of its own.
    place = self.reshape(place, (-1, k * top, 1), f"{name}/places")
    own = self._op(
      "GatherND", [boxes, place], (b, k * top, 4), f"{name}/own", batch_dims=1
    )
    # --- Suppression of each list. Its result has a row for each box that
    # stays.
    chosen = self._op(
      "NonMaxSuppression",
      [
        self.reshape(own, (-1, top, 4), f"{name}/images"),
        self.reshape(best, (-1, 1, top), f"{name}/image_scores"),
        number([top], "top"),
        number(np.array([how.nms_iou], np.float32), "iou"),
        number(np.array([how.threshold], np.float32), "threshold"),
      ],
      (b * k * top, 3),
      f"{name}/chosen",
    )
    # Rows of image and class, 0, place: back to a mask of the candidates.
    pairs = self._op(
      "Gather",
      [chosen, number([0, 2], "columns")],
      (b * k * top, 2),
      f"{name}/pairs",
      axis=1,
    )
    # --- A zero for each candidate, and its score where it stays.
    flat = self.reshape(best, (-1, top), f"{name}/flat")
    shape = self._op("Shape", [flat], (2,), f"{name}/shape")
    nothing = self._op("ConstantOfShape", [shape], flat.shape, f"{name}/none")
    kept = self._op(
      "ScatterND",
      [
        nothing,
        pairs,
        self._op("GatherND", [flat, pairs], (b * k * top,), f"{name}/kept"),
      ],
      flat.shape,
      f"{name}/scattered",
    )
    # --- The surest of all classes; the place tells the class.
    kept = self.reshape(kept, (-1, k * top), f"{name}/rows")
    score, index = self._top(kept, most, (b, most), f"{name}/most")
    label = self._op(
      "Div", [index, number(top, "width")], (b, most), f"{name}/label"
    )
    to = self._onnx.TensorProto.INT32
    classes = self._op("Cast", [label], (b, most), f"{name}/classes", to=to)
    self._kinds[classes.name] = to
    index = self.reshape(index, (-1, most, 1), f"{name}/index")
    final = self._op(
      "GatherND", [own, index], (b, most, 4), f"{name}/final", batch_dims=1
    )
    ends = [number(np.float32(value), f"edge/{value}") for value in (0, 1)]
    final = self._op("Clip", [final, *ends], (b, most, 4), f"{name}/boxes")
    return {"boxes": final, "scores": score, "classes": classes}

  def _top(
    self, x: Ref, count: int, shape: Sequence[int], name: str
  ) -> tuple[Ref, Ref]:
    """The largest of the last axis, and their places."""
    number = self._constant(np.array([count], np.int64), f"{name}/count")
    names = [f"{name}/values", f"{name}/indices"]
    self._nodes.append(
      self._onnx.helper.make_node(
        "TopK", [x.name, number], names, name=name, axis=-1
      )
    )
    return Ref(names[0], tuple(shape)), Ref(names[1], tuple(shape))

  def pool(self, x, name):
    """ReduceMean over h and w; `[b, c]`."""
    axes = self._constant(np.array([2, 3], np.int64), f"{name}/axes")
    return self._op("ReduceMean", [x, axes], x.shape[:2], name, keepdims=0)

  def layer_norm(self, x, epsilon, name):
    """LayerNormalization with a scale of ones, which it requires."""
    d = x.shape[-1]
    ones = self._constant(np.ones(d, np.float32), f"ones/{d}")
    return self._op(
      "LayerNormalization", [x, ones], x.shape, name, axis=-1, epsilon=epsilon
    )

  def group_norm(self, x, epsilon, name):
    """InstanceNormalization of `[b, 1, n]`: one channel of all values."""
    # One channel of all values: an instance norm over it is GroupNorm(1).
    y = self.reshape(x, (-1, 1, math.prod(x.shape[1:])), f"{name}/flat")
    one = self._constant(np.ones(1, np.float32), "group_norm/one")
    zero = self._constant(np.zeros(1, np.float32), "group_norm/zero")
    y = self._op(
      "InstanceNormalization",
      [y, one, zero],
      y.shape,
      f"{name}/normalised",
      epsilon=epsilon,
    )
    return self.reshape(y, (-1, *x.shape[1:]), name)

  def matmul(self, x, y, name, *, transpose_y=False):
    """MatMul; it has no flag for a transposed y, so Transpose before it."""
    if transpose_y:
      y = self.transpose(y, (0, 1, 3, 2), f"{name}/transposed")
    shape = (*x.shape[:-1], y.shape[-1])
    return self._op("MatMul", [x, y], shape, name)

  def softmax(self, x, name):
    """Softmax over the last axis."""
    return self._op("Softmax", [x], x.shape, name, axis=-1)

  def reshape(self, x, shape, name):
    """Reshape; a -1 stays, as the batch may be open."""
    target = self._constant(np.array(shape, np.int64), f"{name}/shape")
    return self._op("Reshape", [x, target], shape, name)

  def transpose(self, x, order, name):
    """Transpose."""
    shape = [x.shape[axis] for axis in order]
    return self._op("Transpose", [x], shape, name, perm=list(order))

  def serialize(self, outputs: Mapping[str, Ref], metadata: str) -> bytes:
    """The file, `metadata` under our name."""
    helper, proto = self._onnx.helper, self._onnx.TensorProto
    # Outputs get the names that users see, by an Identity.
    infos = []
    for name, ref in outputs.items():
      self._op("Identity", [ref], ref.shape, name)
      infos.append(
        helper.make_tensor_value_info(
          name,
          self._kinds.get(ref.name, proto.FLOAT),
          (self._batch, *ref.shape[1:]),
        )
      )
    graph = helper.make_graph(
      self._nodes,
      "mobilevit_jax",
      self._inputs,
      infos,
      initializer=list(self._constants.values()),
    )
    model = helper.make_model(
      graph,
      producer_name="mobilevit_jax",
      opset_imports=[helper.make_opsetid("", OPSET)],
      ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, {"mobilevit_jax": metadata})
    self._onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _scale(old: int, new: int) -> float:
  """The float32 with which an engine finds `new`: floor(old * scale)."""
  scale = np.float32(new / old)
  if int(np.float32(old) * scale) < new:
    scale = np.nextafter(scale, np.float32(np.inf))
  return float(scale)
