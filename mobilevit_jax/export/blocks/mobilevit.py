"""MobileViT's graph; see `models.mobilevit` and `models.transformer`.

LayerNorm's affine and the attention scale lie in the dense layers after them,
and q, k and v are layers of their own. Only LayerNorms read the transformer's
stream, and they take its mean away: the layers that write the stream leave the
mean out, so that LayerNorm need not.
"""

import numpy as np

from mobilevit_jax.export import graph
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import transformer


@graph.write.register
def _mobilevit_block(
  module: mobilevit.MobileViTBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  y = graph.write(module.local_rep, ops, x, f"{name}/local_rep")
  y = attend(module, ops, y, name)
  y = ops.concat(x, y, f"{name}/concat")
  return graph.write(module.fusion, ops, y, f"{name}/fusion")


def attend(
  module: mobilevit.MobileViTBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  """From the block's `expand` to its `project`."""
  # The stream's writers are centred; see the module's docstring. For a matrix W
  # whose columns' mean is taken away, x W has mean 0 over the last axis.
  kernel = _centred(graph.array(module.expand.kernel))
  h, w = ops.size(x)
  y = ops.conv(x, kernel, None, f"{name}/expand/conv")
  even = h + h % 2, w + w % 2
  if even != (h, w):
    y = ops.resize(y, *even, f"{name}/resize_up")
  y = write_unfold(ops, ops.rows(y, f"{name}/rows"), even, f"{name}/unfold")
  y = graph.write(module.global_rep, ops, y, f"{name}/global_rep")
  y = ops.layer_norm(y, module.norm.epsilon, f"{name}/norm")
  y = ops.map(write_fold(ops, y, even, f"{name}/fold"), f"{name}/map")
  if even != (h, w):
    y = ops.resize(y, h, w, f"{name}/resize_down")
  # The norm's affine commutes with fold and resize: both only average pixels.
  scale, shift = graph.array(module.norm.scale), graph.array(module.norm.bias)
  kernel = graph.array(module.project.conv.kernel)
  y = ops.conv(
    # conv(s y + t) = conv with kernel K s, plus t K: exact for a 1x1 kernel.
    y,
    kernel * scale[:, None],
    graph.array(module.project.norm.bias) + shift @ kernel[0, 0],
    f"{name}/project/conv",
  )
  return ops.silu(y, f"{name}/project/silu")


def write_unfold(
  ops: Ops, x: Tensor, size: tuple[int, int], name: str
) -> Tensor:
  """`mobilevit.unfold`: `[b, h, w, d]` to `[b, 4, n, d]`."""
  (h, w), d = size, x.shape[-1]
  x = ops.reshape(x, (-1, 2, w // 2, 2 * d), f"{name}/rows")
  x = ops.transpose(x, (0, 2, 1, 3), f"{name}/columns")
  x = ops.reshape(x, (-1, h * w // 4, 4, d), f"{name}/patches")
  return ops.transpose(x, (0, 2, 1, 3), f"{name}/pixels")


def write_fold(ops: Ops, x: Tensor, size: tuple[int, int], name: str) -> Tensor:
  """`mobilevit.fold`, the inverse."""
  (h, w), d = size, x.shape[-1]
  x = ops.transpose(x, (0, 2, 1, 3), f"{name}/patches")
  x = ops.reshape(x, (-1, w // 2, 2, 2 * d), f"{name}/columns")
  x = ops.transpose(x, (0, 2, 1, 3), f"{name}/rows")
  return ops.reshape(x, (-1, h, w, d), f"{name}/image")


@graph.write.register
def _transformer_block(
  module: transformer.TransformerBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  # LayerNorm without its affine, which is in the next dense layer: LN(x) W + b
  # = norm(x) (g W) + (beta W + b).
  y = ops.layer_norm(x, module.attention_norm.epsilon, f"{name}/attention_norm")
  y = _attention(module, ops, y, f"{name}/attention")
  x = ops.add(x, y, f"{name}/attention_residual")
  y = ops.layer_norm(x, module.ffn_norm.epsilon, f"{name}/ffn_norm")
  kernel, bias = graph.after_norm(module.ffn_norm, module.ffn_in)
  y = ops.linear(y, kernel, bias, f"{name}/ffn_in/linear")
  y = ops.silu(y, f"{name}/ffn_in/silu")
  kernel, bias = map(_centred, graph.affine(module.ffn_out))
  y = ops.linear(y, kernel, bias, f"{name}/ffn_out/linear")
  return ops.add(x, y, f"{name}/ffn_residual")


def _centred(weights: np.ndarray) -> np.ndarray:
  """Weights whose results have no mean over the last axis."""
  # In double precision, so that the mean is removed to float32's last digit.
  mean = weights.mean(-1, dtype=np.float64, keepdims=True)
  return (weights - mean).astype(np.float32)


def _attention(
  block: transformer.TransformerBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  k, d = block.attention.heads, x.shape[-1]
  n, e = x.shape[-2], d // k
  kernel, bias = graph.after_norm(block.attention_norm, block.attention.qkv)
  heads = []
  for index, part in enumerate(("query", "key", "value")):
    # The scale 1 / sqrt(e) costs nothing in the weights, and an operator on its
    # own.
    columns = slice(index * d, (index + 1) * d)
    scale = e**-0.5 if part == "query" else 1
    y = ops.linear(
      x,
      kernel[:, columns] * np.float32(scale),
      bias[columns] * np.float32(scale),
      f"{name}/{part}/linear",
    )
    # [b p, n, d] with the heads split off: four axes, as a GPU takes at most.
    y = ops.reshape(y, (-1, n, k, e), f"{name}/{part}/split")
    heads.append(ops.transpose(y, (0, 2, 1, 3), f"{name}/{part}/heads"))
  query, key, value = heads
  scores = ops.matmul(query, key, f"{name}/scores", transpose_y=True)
  weights = ops.softmax(scores, f"{name}/softmax")
  y = ops.matmul(weights, value, f"{name}/mix")
  y = ops.transpose(y, (0, 2, 1, 3), f"{name}/merge/tokens")
  y = ops.reshape(y, (-1, 4, n, d), f"{name}/merge/width")
  kernel, bias = map(_centred, graph.affine(block.attention.out))
  return ops.linear(y, kernel, bias, f"{name}/out/linear")
