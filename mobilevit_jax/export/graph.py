"""What a net computes, layer by layer, for writers of graphs.

The net is walked with its weights, and some exact rewrites are made on the
way: BatchNorm lies in the convolutions, LayerNorm's affine and the attention
scale in the dense layers after them, and q, k and v are layers of their own.
Only LayerNorms read the transformer's stream, and they take its mean away: the
layers that write the stream leave the mean out, so that LayerNorm need not.
No tensor has more than four axes. The tests compare what each format's engine
answers with the model in JAX.
"""

from typing import Any

import numpy as np

from mobilevit_jax.export import fold_bn
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models import layers
from mobilevit_jax.models import mobilenet_v2
from mobilevit_jax.models import mobilenet_v3
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import transformer


def write(
  model: mobilevit.MobileViT
  | mobilenet_v2.MobileNetV2
  | mobilenet_v3.MobileNetV3,
  ops: Ops,
  x: Tensor,
  *,
  features: bool = False,
  probabilities: bool = False,
) -> dict[str, Tensor]:
  """Writes the net.

  Args:
    model: with its weights, its BatchNorms folded or not.
    ops: writer of a format.
    x: map of RGB images in [0, 1], `[b, h, w, 3]`.
    features: stop at the stages, of which the outputs are returned.
    probabilities: a softmax after the logits.

  Returns:
    `{"logits": [b, num_classes]}`, `{"probabilities": ...}`, or `"stage1"` to
    `"stage5"`.
  """
  model = fold_bn.fold_batch_norms(model)
  x = _conv_norm(model.stem, ops, x, "stem")
  stages = {}
  for number in range(1, 6):
    for index, block in enumerate(getattr(model, f"stage{number}")):
      name = f"stage{number}/{index}"
      if isinstance(block, mobilevit.MobileViTBlock):
        x = _mobilevit_block(block, ops, x, name)
      else:
        x = _inverted_residual(block, ops, x, name)
    stages[f"stage{number}"] = x
  if features:
    return {key: ops.rows(x, f"{key}/out") for key, x in stages.items()}
  x = ops.pool(_conv_norm(model.head, ops, x, "head"), "pool")
  if isinstance(model, mobilenet_v3.MobileNetV3):
    x = ops.linear(x, *_affine(model.hidden), "hidden")
    x = ops.hard_swish(x, "hidden/hard_swish")
  kernel, bias = _affine(model.classifier)
  x = ops.linear(x, kernel, bias, "classifier")
  if probabilities:
    return {"probabilities": ops.softmax(x, "classifier/softmax")}
  return {"logits": x}


def _array(value: Any) -> np.ndarray:
  return np.asarray(value[...], np.float32)


def _affine(linear: layers.Linear) -> tuple[np.ndarray, np.ndarray]:
  return _array(linear.kernel), _array(linear.bias)


def _conv_norm(
  module: layers.ConvNormAct, ops: Ops, x: Tensor, name: str
) -> Tensor:
  y = ops.conv(
    x,
    _array(module.conv.kernel),
    _array(module.norm.bias),
    f"{name}/conv",
    stride=module.conv.stride,
    relu6=module.activation == "relu6",
  )
  return _activate(module.activation, ops, y, name)


def _activate(
  activation: layers.Activation | None, ops: Ops, x: Tensor, name: str
) -> Tensor:
  """ReLU6 lies in the convolution."""
  if activation == "silu":
    return ops.silu(x, f"{name}/silu")
  if activation == "relu":
    return ops.relu(x, f"{name}/relu")
  if activation == "hard_swish":
    return ops.hard_swish(x, f"{name}/hard_swish")
  return x


def _inverted_residual(
  module: layers.InvertedResidual | mobilenet_v3.Block,
  ops: Ops,
  x: Tensor,
  name: str,
) -> Tensor:
  y = x
  if module.expansion != 1:
    y = _conv_norm(module.expand, ops, x, f"{name}/expand")
  y = ops.conv(
    y,
    _array(module.depthwise.kernel),
    _array(module.norm.bias),
    f"{name}/depthwise/conv",
    stride=module.depthwise.stride,
    dilation=module.depthwise.dilation,
    depthwise=True,
    relu6=module.activation == "relu6",
  )
  y = _activate(module.activation, ops, y, f"{name}/depthwise")
  if isinstance(module, mobilenet_v3.Block) and module.squeeze:
    y = _squeeze_excite(module.gate, ops, y, f"{name}/gate")
  y = _conv_norm(module.project, ops, y, f"{name}/project")
  return ops.add(x, y, f"{name}/residual") if module.residual else y


def _squeeze_excite(
  module: mobilenet_v3.SqueezeExcite, ops: Ops, x: Tensor, name: str
) -> Tensor:
  y = ops.pool(x, f"{name}/pool")
  y = ops.linear(y, *_affine(module.reduce), f"{name}/reduce")
  y = ops.relu(y, f"{name}/relu")
  y = ops.linear(y, *_affine(module.expand), f"{name}/expand")
  return ops.scale(x, ops.hard_sigmoid(y, f"{name}/sigmoid"), name)


def _mobilevit_block(
  module: mobilevit.MobileViTBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  y = _conv_norm(module.local_rep, ops, x, f"{name}/local_rep")
  kernel = _centred(_array(module.expand.kernel))
  y = ops.conv(y, kernel, None, f"{name}/expand/conv")
  h, w = ops.size(x)
  even = h + h % 2, w + w % 2
  if even != (h, w):
    y = ops.resize(y, *even, f"{name}/resize_up")
  y = _unfold(ops, ops.rows(y, f"{name}/rows"), even, f"{name}/unfold")
  for index, block in enumerate(module.global_rep):
    y = _transformer_block(block, ops, y, f"{name}/global_rep/{index}")
  y = ops.layer_norm(y, module.norm.epsilon, f"{name}/norm")
  y = ops.map(_fold(ops, y, even, f"{name}/fold"), f"{name}/map")
  if even != (h, w):
    y = ops.resize(y, h, w, f"{name}/resize_down")
  # The norm's affine commutes with fold and resize: both only average pixels.
  scale, shift = _array(module.norm.scale), _array(module.norm.bias)
  kernel = _array(module.project.conv.kernel)
  y = ops.conv(
    y,
    kernel * scale[:, None],
    _array(module.project.norm.bias) + shift @ kernel[0, 0],
    f"{name}/project/conv",
  )
  y = ops.silu(y, f"{name}/project/silu")
  y = ops.concat(x, y, f"{name}/concat")
  return _conv_norm(module.fusion, ops, y, f"{name}/fusion")


def _unfold(ops: Ops, x: Tensor, size: tuple[int, int], name: str) -> Tensor:
  """`mobilevit.unfold`: `[b, h, w, d]` to `[b, 4, n, d]`."""
  (h, w), d = size, x.shape[-1]
  x = ops.reshape(x, (-1, 2, w // 2, 2 * d), f"{name}/rows")
  x = ops.transpose(x, (0, 2, 1, 3), f"{name}/columns")
  x = ops.reshape(x, (-1, h * w // 4, 4, d), f"{name}/patches")
  return ops.transpose(x, (0, 2, 1, 3), f"{name}/pixels")


def _fold(ops: Ops, x: Tensor, size: tuple[int, int], name: str) -> Tensor:
  (h, w), d = size, x.shape[-1]
  x = ops.transpose(x, (0, 2, 1, 3), f"{name}/patches")
  x = ops.reshape(x, (-1, w // 2, 2, 2 * d), f"{name}/columns")
  x = ops.transpose(x, (0, 2, 1, 3), f"{name}/rows")
  return ops.reshape(x, (-1, h, w, d), f"{name}/image")


def _transformer_block(
  module: transformer.TransformerBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  y = ops.layer_norm(x, module.attention_norm.epsilon, f"{name}/attention_norm")
  y = _attention(module, ops, y, f"{name}/attention")
  x = ops.add(x, y, f"{name}/attention_residual")
  y = ops.layer_norm(x, module.ffn_norm.epsilon, f"{name}/ffn_norm")
  kernel, bias = _after_norm(module.ffn_norm, module.ffn_in)
  y = ops.linear(y, kernel, bias, f"{name}/ffn_in/linear")
  y = ops.silu(y, f"{name}/ffn_in/silu")
  kernel, bias = map(_centred, _affine(module.ffn_out))
  y = ops.linear(y, kernel, bias, f"{name}/ffn_out/linear")
  return ops.add(x, y, f"{name}/ffn_residual")


def _centred(weights: np.ndarray) -> np.ndarray:
  """Weights whose results have no mean over the last axis."""
  mean = weights.mean(-1, dtype=np.float64, keepdims=True)
  return (weights - mean).astype(np.float32)


def _after_norm(
  norm: layers.LayerNorm, linear: layers.Linear
) -> tuple[np.ndarray, np.ndarray]:
  """A dense layer that has the affine of the norm before it inside."""
  kernel, bias = _affine(linear)
  scale, shift = _array(norm.scale), _array(norm.bias)
  return kernel * scale[:, None], bias + shift @ kernel


def _attention(
  block: transformer.TransformerBlock, ops: Ops, x: Tensor, name: str
) -> Tensor:
  k, d = block.attention.heads, x.shape[-1]
  n, e = x.shape[-2], d // k
  kernel, bias = _after_norm(block.attention_norm, block.attention.qkv)
  heads = []
  for index, part in enumerate(("query", "key", "value")):
    columns = slice(index * d, (index + 1) * d)
    scale = e**-0.5 if part == "query" else 1
    y = ops.linear(
      x,
      kernel[:, columns] * np.float32(scale),
      bias[columns] * np.float32(scale),
      f"{name}/{part}/linear",
    )
    y = ops.reshape(y, (-1, n, k, e), f"{name}/{part}/split")
    heads.append(ops.transpose(y, (0, 2, 1, 3), f"{name}/{part}/heads"))
  query, key, value = heads
  scores = ops.matmul(query, key, f"{name}/scores", transpose_y=True)
  weights = ops.softmax(scores, f"{name}/softmax")
  y = ops.matmul(weights, value, f"{name}/mix")
  y = ops.transpose(y, (0, 2, 1, 3), f"{name}/merge/tokens")
  y = ops.reshape(y, (-1, 4, n, d), f"{name}/merge/width")
  kernel, bias = map(_centred, _affine(block.attention.out))
  return ops.linear(y, kernel, bias, f"{name}/out/linear")
