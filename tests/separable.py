"""MobileViTv2's block in NumPy, from the paper and mobilevit_v2.md alone."""

from typing import Any

import numpy as np


def block(weights: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """What the block answers, in float64.

  Args:
    weights: the block, of which only its tensors are used.
    x: `[b, h, w, c]`.

  Returns:
    Its output, `[b, h, w, c]` with even h and w; and the softmax of the scores,
    `[b, l, p, n]`: of layer l, pixel p = 2 (row % 2) + column % 2 of a patch,
    and patch n, row by row.
  """
  x = _even(np.asarray(x, np.float64))
  b, h, w, _ = x.shape
  taps = np.asarray(weights.local_rep.conv.kernel[...])
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  y = sum(
    padded[:, i : i + h, j : j + w] * taps[i, j, 0]
    for i in range(3)
    for j in range(3)
  )
  z = _conv(weights.expand, _silu(_batch_norm(weights.local_rep.norm, y)))
  softmax = []
  for layer in weights.global_rep:
    qkv = _conv(layer.attention.qkv, _group_norm(layer.attention_norm, z))
    d = z.shape[-1]
    y = np.zeros_like(z)
    for i in range(2):
      for j in range(2):  # each of the four places by itself
        part = qkv[:, i::2, j::2]
        scores = np.exp(part[..., :1])
        scores /= scores.sum((1, 2), keepdims=True)
        softmax.append(scores.reshape(b, -1))
        keys, values = part[..., 1 : 1 + d], part[..., 1 + d :]
        context = (scores * keys).sum((1, 2), keepdims=True)
        y[:, i::2, j::2] = np.maximum(values, 0) * context
    z = z + _conv(layer.attention.out, y)
    y = _silu(_conv(layer.ffn_in, _group_norm(layer.ffn_norm, z)))
    z = z + _conv(layer.ffn_out, y)
  out = _conv(weights.project.conv, _group_norm(weights.norm, z))
  found = np.reshape(softmax, (len(weights.global_rep), 4, b, h * w // 4))
  return _batch_norm(weights.project.norm, out), np.moveaxis(found, 2, 0)


def _even(x: np.ndarray) -> np.ndarray:
  """Odd sides made even: bilinear, and corners stay corners."""
  for axis in (1, 2):
    old = x.shape[axis]
    places = np.linspace(0, old - 1, old + old % 2)

    def line(values: np.ndarray, places: np.ndarray = places) -> np.ndarray:
      return np.interp(places, np.arange(len(values)), values)

    x = np.apply_along_axis(line, axis, x)
  return x


def _conv(module: Any, x: np.ndarray) -> np.ndarray:
  y = x @ np.asarray(module.kernel[0, 0], np.float64)
  return y + np.asarray(module.bias[...]) if module.use_bias else y


def _batch_norm(norm: Any, x: np.ndarray) -> np.ndarray:
  mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
  y = (x - mean) / np.sqrt(var + 1e-5)
  return y * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def _group_norm(norm: Any, x: np.ndarray) -> np.ndarray:
  y = x - x.mean((1, 2, 3), keepdims=True)
  y /= np.sqrt(np.square(y).mean((1, 2, 3), keepdims=True) + 1e-5)
  return y * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def _silu(x: np.ndarray) -> np.ndarray:
  return x / (1 + np.exp(-x))
