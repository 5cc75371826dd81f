"""MobileViTv2's graph; see `models.mobilevit_v2`.

The norms' affine lies in the layers after them, and scores, keys and values
are layers of their own.
"""

import numpy as np

from mobilevit_jax.export import graph
from mobilevit_jax.export.blocks import mobilevit as blocks_of_v1
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models import mobilevit_v2


@graph.write.register
def _block(
  module: mobilevit_v2.MobileViTv2Block, ops: Ops, x: Tensor, name: str
) -> Tensor:
  x = even_size(ops, x, name)
  y = graph.write(module.local_rep, ops, x, f"{name}/local_rep")
  y = attend(
    module, ops, graph.write(module.expand, ops, y, f"{name}/expand"), name
  )
  return project(module, ops, y, name)


def even_size(ops: Ops, x: Tensor, name: str) -> Tensor:
  """`mobilevit_v2.even_size`."""
  h, w = ops.size(x)
  even = h + h % 2, w + w % 2
  if even == (h, w):
    return x
  return ops.resize(x, *even, f"{name}/resize", align_corners=True)


def attend(
  module: mobilevit_v2.MobileViTv2Block, ops: Ops, x: Tensor, name: str
) -> Tensor:
  """The map through `global_rep` and the norm, without that one's affine."""
  size = ops.size(x)
  y = ops.rows(x, f"{name}/rows")
  y = blocks_of_v1.write_unfold(ops, y, size, f"{name}/unfold")
  y = graph.write(module.global_rep, ops, y, f"{name}/global_rep")
  y = ops.group_norm(y, module.norm.epsilon, f"{name}/norm")
  return ops.map(
    blocks_of_v1.write_fold(ops, y, size, f"{name}/fold"), f"{name}/map"
  )


def project(
  module: mobilevit_v2.MobileViTv2Block, ops: Ops, x: Tensor, name: str
) -> Tensor:
  """`project` of a map that begins with what `attend` gave."""
  scale, shift = graph.array(module.norm.scale), graph.array(module.norm.bias)
  kernel = graph.array(module.project.conv.kernel)
  bias = graph.array(module.project.norm.bias)
  # The norm's affine acts on the first channels alone: MobileViTv3's block has
  # local features behind them.
  bias = bias + shift @ kernel[0, 0, : len(shift)]
  scale = np.concatenate([scale, np.ones(kernel.shape[2] - len(scale))])
  kernel = (kernel * scale[:, None]).astype(np.float32)
  return ops.conv(x, kernel, bias, f"{name}/project/conv")


@graph.write.register
def _layer(
  module: mobilevit_v2.SeparableBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  norm = module.attention_norm
  y = ops.group_norm(x, norm.epsilon, f"{name}/attention_norm")
  y = _attention(module, ops, y, f"{name}/attention")
  x = ops.add(x, y, f"{name}/attention_residual")
  y = ops.group_norm(x, module.ffn_norm.epsilon, f"{name}/ffn_norm")
  kernel, bias = graph.after_norm(module.ffn_norm, module.ffn_in)
  y = ops.linear(y, kernel, bias, f"{name}/ffn_in/linear")
  y = ops.silu(y, f"{name}/ffn_in/silu")
  y = ops.linear(y, *graph.affine(module.ffn_out), f"{name}/ffn_out/linear")
  return ops.add(x, y, f"{name}/ffn_residual")


def _attention(
  module: mobilevit_v2.SeparableBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  _, p, n, d = x.shape
  kernel, bias = graph.after_norm(module.attention_norm, module.attention.qkv)
  # One channel of scores, d of keys, d of values, as in the model.
  kernels, biases = (np.split(a, (1, 1 + d), axis=-1) for a in (kernel, bias))
  scores, keys, values = (
    ops.linear(x, k, b, f"{name}/{part}/linear")
    for part, k, b in zip(
      ("scores", "keys", "values"), kernels, biases, strict=True
    )
  )
  # [b, p, n, 1] as a row: softmax runs over the last axis in every format.
  scores = ops.reshape(scores, (-1, p, 1, n), f"{name}/row")
  scores = ops.softmax(scores, f"{name}/softmax")
  # The weighted sum over patches is a product of a row and a matrix.
  context = ops.matmul(scores, keys, f"{name}/context")
  values = ops.relu(values, f"{name}/values/relu")
  y = ops.mul(values, context, f"{name}/product")
  return ops.linear(
    y, *graph.affine(module.attention.out), f"{name}/out/linear"
  )
