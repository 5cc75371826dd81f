"""Writes CoreML graphs, operator by operator, in coremltools' MIL.

Maps are `[b, c, h, w]` inside, CoreML's own order. MIL knows each tensor's
shape itself, so a mistake in one raises where it is made.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import importlib
import io
import logging
import os
from typing import Any

import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export.ops import ChannelsFirst


def library() -> Any:
  """The package coremltools (an extra)."""
  # It warns of versions of other frameworks, which have no part in this.
  logging.getLogger("coremltools").setLevel(logging.ERROR)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  with contextlib.redirect_stderr(io.StringIO()):
    return contract.library("coremltools", "coremltools", "coreml")


class CoreMLOps(ChannelsFirst):
  """Adds operators to the MIL function that is being built; see `program`."""

  def __init__(self):
    self._mb = importlib.import_module("coremltools.converters.mil").Builder

  def input(self, x: Any, *, pixels: bool = False) -> Any:
    """The function's input as a map.

    Args:
      x: float32 `[b, h, w, 3]` in [0, 1]; or, with `pixels`, the
        `[b, 3, h, w]` that CoreML makes of an image, from 0 to 255.
      pixels: see above.
    """
    if not pixels:
      return self.map(x, "preprocess/map")
    return self._mb.mul(x=x, y=np.float32(1 / 255), name="preprocess/images")

  def conv(
    self, x, kernel, bias, name, *, stride=1, dilation=1, groups=1, relu6=False
  ):
    """`conv` with custom padding, and `relu6` after it where asked."""
    kh, kw, _, out = kernel.shape
    # Padding is symmetric: "same" would shift windows at stride 2.
    reach = dilation * (kh // 2), dilation * (kw // 2)
    if bias is None:
      bias = np.zeros(out, np.float32)
    y = self._mb.conv(
      x=x,
      weight=np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
      bias=np.float32(bias),
      strides=[stride] * 2,
      dilations=[dilation] * 2,
      pad_type="custom",
      pad=[reach[0]] * 2 + [reach[1]] * 2,
      groups=groups,
      name=f"{name}/product" if relu6 else name,
    )
    return self._mb.relu6(x=y, name=name) if relu6 else y

  def linear(self, x, kernel, bias, name):
    """`linear`, with its weights as `[out, in]`."""
    # MIL's linear takes weights as [out, in], as PyTorch does.
    weight = np.ascontiguousarray(kernel.T)
    return self._mb.linear(x=x, weight=weight, bias=np.float32(bias), name=name)

  def silu(self, x, name):
    """`silu`, which MIL has as one operator."""
    return self._mb.silu(x=x, name=name)

  def add(self, x, y, name):
    """`add` of two tensors of one shape."""
    return self._mb.add(x=x, y=y, name=name)

  def mul(self, x, y, name):
    """`mul`; y may broadcast over x."""
    return self._mb.mul(x=x, y=y, name=name)

  def relu(self, x, name):
    """`relu`, of any rank."""
    return self._mb.relu(x=x, name=name)

  def concat(self, x, y, name):
    """`concat` of the channels, axis 1."""
    return self._mb.concat(values=[x, y], axis=1, name=name)

  def resize(self, x, h, w, name, *, align_corners=False):
    """`resize_bilinear` to `[b, c, h, w]`."""
    # The second has half-pixel centres.
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS"
    return self._mb.resize_bilinear(
      x=x,
      target_size_height=h,
      target_size_width=w,
      sampling_mode=mode,
      name=name,
    )

  def mask(self, x, name):
    """`reduce_argmax`, `[b, h, w]`; int32, as CoreML answers with no bytes."""
    return self._mb.reduce_argmax(x=x, axis=1, keep_dims=False, name=name)

  def join(self, parts, axis, name):
    """`concat` along any axis."""
    return self._mb.concat(values=list(parts), axis=axis, name=name)

  def exp(self, x, name):
    """`exp`."""
    return self._mb.exp(x=x, name=name)

  def affine(self, x, scale, shift, name):
    """`mul` and `add` by constants `[1, ...]`, broadcast over the batch."""
    last = name if shift is None else f"{name}/product"
    # Without the batch axis, which is broadcast.
    x = self._mb.mul(x=x, y=np.asarray(scale, np.float32)[None], name=last)
    if shift is None:
      return x
    return self._mb.add(x=x, y=np.asarray(shift, np.float32)[None], name=name)

  def tail(self, x, name):
    """`slice_by_size` from place 1 of the last axis."""
    b, n, k = x.shape
    return self._mb.slice_by_size(
      x=x, begin=[0, 0, 1], size=[b, n, k - 1], name=name
    )

  def pool(self, x, name):
    """`reduce_mean` over h and w; `[b, c]`."""
    return self._mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False, name=name)

  def layer_norm(self, x, epsilon, name):
    """`layer_norm` over the last axis, without scale and offset."""
    return self._mb.layer_norm(
      x=x, axes=[-1], epsilon=np.float32(epsilon), name=name
    )

  def group_norm(self, x, epsilon, name):
    """`layer_norm` over all axes but the batch: GroupNorm(1)."""
    axes = list(range(1, len(x.shape)))
    return self._mb.layer_norm(
      x=x, axes=axes, epsilon=np.float32(epsilon), name=name
    )

  def matmul(self, x, y, name, *, transpose_y=False):
    """`matmul`; `transpose_y` is one of its fields."""
    return self._mb.matmul(x=x, y=y, transpose_y=transpose_y, name=name)

  def softmax(self, x, name):
    """`softmax` over the last axis."""
    return self._mb.softmax(x=x, axis=-1, name=name)

  def reshape(self, x, shape, name):
    """`reshape`."""
    return self._mb.reshape(x=x, shape=list(shape), name=name)

  def transpose(self, x, order, name):
    """`transpose`."""
    return self._mb.transpose(x=x, perm=list(order), name=name)

  def output(self, x: Any, name: str) -> Any:
    """The same tensor, under the name that the file gives it."""
    return self._mb.identity(x=x, name=name)


def program(
  shape: Sequence[int], write: Callable[[CoreMLOps, Any], Mapping[str, Any]]
) -> Any:
  """A MIL program.

  Args:
    shape: of the float32 input, `"images"`.
    write: adds the operators, and returns the outputs by name.
  """
  mil = importlib.import_module("coremltools.converters.mil.mil")
  ops = CoreMLOps()
  images = mil.Builder.placeholder(shape=tuple(shape))
  function = mil.Function({"images": images})
  with function:
    outputs = write(ops, function.inputs["images"])
    function.set_outputs([ops.output(x, key) for key, x in outputs.items()])
  result = mil.Program()
  result.add_function("main", function)
  return result
