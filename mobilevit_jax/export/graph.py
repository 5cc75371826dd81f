"""What layers compute, in the operators of `ops`.

`write` is registered by a layer's class: here for the layers that families
share, in `blocks` for what one family or head has.
"""

import functools
from typing import Any

from flax import nnx
import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models import depthwise
from mobilevit_jax.models import layers


@functools.singledispatch
def write(module: Any, ops: Ops, x: Tensor, name: str) -> Tensor:
  """Writes a layer.

  Args:
    module: the layer with its weights, its BatchNorms folded (`fold_bn`).
    ops: writer of a format.
    x: what the layer is applied to.
    name: of the layer; the names of its tensors begin with it.

  Raises:
    ExportError: for a class that isn't registered.
  """
  raise contract.ExportError(
    f"{name}: there is no writer of a {type(module).__name__}"
  )


@write.register
# `nnx.List` is a stage, or any other sequence of layers.
def _stage(module: nnx.List, ops: Ops, x: Tensor, name: str) -> Tensor:
  for index, block in enumerate(module):
    x = write(block, ops, x, f"{name}/{index}")
  return x


@write.register
def _linear(module: layers.Linear, ops: Ops, x: Tensor, name: str) -> Tensor:
  return ops.linear(x, *affine(module), name)


@write.register
def _conv_norm(
  module: layers.ConvNormAct, ops: Ops, x: Tensor, name: str
) -> Tensor:
  return _conv_norm_act(module, module.conv, ops, x, name)


@write.register
def _conv(module: layers.Conv, ops: Ops, x: Tensor, name: str) -> Tensor:
  bias = array(module.bias) if module.use_bias else None
  return ops.conv(x, array(module.kernel), bias, f"{name}/conv")


@write.register
def _inverted_residual(
  module: layers.InvertedResidual, ops: Ops, x: Tensor, name: str
) -> Tensor:
  return project(module, ops, x, expand(module, ops, x, name), name)


def expand(module: Any, ops: Ops, x: Tensor, name: str) -> Tensor:
  """An inverted residual as far as its depthwise convolution."""
  if module.expansion != 1:
    x = write(module.expand, ops, x, f"{name}/expand")
  return _conv_norm_act(module, module.depthwise, ops, x, f"{name}/depthwise")


def project(module: Any, ops: Ops, x: Tensor, y: Tensor, name: str) -> Tensor:
  """The rest of an inverted residual of `x`: `y` is what `expand` gave."""
  y = write(module.project, ops, y, f"{name}/project")
  return ops.add(x, y, f"{name}/residual") if module.residual else y


def write_depthwise(module: Any, ops: Ops, x: Tensor, name: str) -> Tensor:
  """A module's `depthwise` convolution with its norm, without activation."""
  # The norm's bias is all that folding left of it.
  conv = module.depthwise
  kernel, bias = array(conv.kernel), array(module.norm.bias)
  return ops.conv(
    x,
    kernel,
    bias,
    f"{name}/conv",
    stride=conv.stride,
    dilation=conv.dilation,
    groups=kernel.shape[-1],
  )


def _conv_norm_act(
  module: Any, conv: Any, ops: Ops, x: Tensor, name: str
) -> Tensor:
  """A convolution of the module, with its norm and activation."""
  kernel, bias = array(conv.kernel), array(module.norm.bias)
  # ReLU6 lies in the convolution, where LiteRT has it.
  options = {"stride": conv.stride, "relu6": module.activation == "relu6"}
  options["dilation"] = conv.dilation
  if isinstance(conv, depthwise.DepthwiseConv):
    options["groups"] = kernel.shape[-1]
  y = ops.conv(x, kernel, bias, f"{name}/conv", **options)
  activations = {
    "silu": ops.silu,
    "relu": ops.relu,
    "hard_swish": ops.hard_swish,
  }
  if module.activation in activations:
    y = activations[module.activation](y, f"{name}/{module.activation}")
  return y


def array(value: Any) -> np.ndarray:
  """A parameter's value."""
  return np.asarray(value[...], np.float32)


def affine(
  linear: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Kernel `[in, out]` and bias `[out]`, also of a 1x1 convolution."""
  kernel = array(linear.kernel)
  return kernel.reshape(kernel.shape[-2:]), array(linear.bias)


def after_norm(
  norm: layers.LayerNorm | layers.GroupNorm, linear: layers.Linear | layers.Conv
) -> tuple[np.ndarray, np.ndarray]:
  """A dense layer that has the affine of the norm before it inside."""
  kernel, bias = affine(linear)
  # W (g x + b) = (W g) x + W b.
  scale, shift = array(norm.scale), array(norm.bias)
  return kernel * scale[:, None], bias + shift @ kernel
