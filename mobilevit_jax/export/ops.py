"""The few operators that a phone's graph is made of.

`graph.py` and `blocks` say what the net does in terms of these; each format
says how it writes them (`litert/writer.py`, `onnx_graph.py`,
`coreml_graph.py`). Shapes are `[b, h, w, c]` wherever a method's docstring says
so, whatever layout a format keeps inside.
"""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

Tensor = Any  # each format's own


class Ops(abc.ABC):
  """Writes operators into a graph; every name is unique in it."""

  @abc.abstractmethod
  def conv(
    self,
    x: Tensor,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    name: str,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    relu6: bool = False,
  ) -> Tensor:
    """Convolution of a map, padded symmetrically by half the kernel.

    Args:
      x: map.
      kernel: `[kh, kw, c / groups, out]`.
      bias: `[out]`.
      name: of the result.
      stride: 1 or 2.
      dilation: distance of the taps.
      groups: 1, or c for a depthwise one, of each channel by itself.
      relu6: clip the result to [0, 6].
    """

  @abc.abstractmethod
  def linear(
    self, x: Tensor, kernel: np.ndarray, bias: np.ndarray, name: str
  ) -> Tensor:
    """Dense layer over the last axis; kernel `[in, out]`."""

  @abc.abstractmethod
  def silu(self, x: Tensor, name: str) -> Tensor:
    """`x * sigmoid(x)`."""

  @abc.abstractmethod
  def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
    """Sum of equal shapes."""

  @abc.abstractmethod
  def mul(self, x: Tensor, y: Tensor, name: str) -> Tensor:
    """Product; an extent of y is that of x, or 1. Not for maps."""

  @abc.abstractmethod
  def relu(self, x: Tensor, name: str) -> Tensor:
    """`max(x, 0)`."""

  @abc.abstractmethod
  def concat(self, x: Tensor, y: Tensor, name: str) -> Tensor:
    """Channels of the map x, then those of y."""

  @abc.abstractmethod
  def resize(
    self, x: Tensor, h: int, w: int, name: str, *, align_corners: bool = False
  ) -> Tensor:
    """Bilinear, with half-pixel centres or with the corners left in place."""

  @abc.abstractmethod
  def pool(self, x: Tensor, name: str) -> Tensor:
    """Mean of a map over h and w: `[b, c]`."""

  @abc.abstractmethod
  def layer_norm(self, x: Tensor, epsilon: float, name: str) -> Tensor:
    """LayerNorm over the last axis, without affine.

    The mean of x is zero already (see `blocks.mobilevit`), which a writer may
    use.
    """

  @abc.abstractmethod
  def group_norm(self, x: Tensor, epsilon: float, name: str) -> Tensor:
    """GroupNorm of one group, without affine: over all axes but the first.

    Not for maps.
    """

  @abc.abstractmethod
  def matmul(
    self, x: Tensor, y: Tensor, name: str, *, transpose_y: bool = False
  ) -> Tensor:
    """Product of the last two axes."""

  @abc.abstractmethod
  def softmax(self, x: Tensor, name: str) -> Tensor:
    """Over the last axis."""

  @abc.abstractmethod
  def reshape(self, x: Tensor, shape: Sequence[int], name: str) -> Tensor:
    """Only the first extent may be -1; not for maps (see `rows`)."""

  @abc.abstractmethod
  def transpose(self, x: Tensor, order: Sequence[int], name: str) -> Tensor:
    """Not for maps (see `rows`)."""

  @abc.abstractmethod
  def rows(self, x: Tensor, name: str) -> Tensor:
    """The map x as a plain tensor, `[b, h, w, c]`."""

  @abc.abstractmethod
  def map(self, x: Tensor, name: str) -> Tensor:
    """Inverse of `rows`."""

  @abc.abstractmethod
  def size(self, x: Tensor) -> tuple[int, int]:
    """Height and width of a map."""

  def mask(self, x: Tensor, name: str) -> Tensor:
    """`[b, h, w]`: the channel of a map with the largest value, as integers."""
    raise NotImplementedError(name)

  # What follows only detectors have, in float32 whatever the file is of.

  def join(self, parts: Sequence[Tensor], axis: int, name: str) -> Tensor:
    """Plain tensors one after another along an axis. Not for maps."""
    raise NotImplementedError(name)

  def exp(self, x: Tensor, name: str) -> Tensor:
    """`e ** x`."""
    raise NotImplementedError(name)

  def affine(
    self, x: Tensor, scale: np.ndarray, shift: np.ndarray | None, name: str
  ) -> Tensor:
    """`x * scale + shift`, by constants of x's shape without the batch."""
    raise NotImplementedError(name)

  def tail(self, x: Tensor, name: str) -> Tensor:
    """`[b, n, k]` without the first of the last axis."""
    raise NotImplementedError(name)

  # What follows only MobileNetV3 has, a yardstick; a format may do without.

  def hard_swish(self, x: Tensor, name: str) -> Tensor:
    """`x * clip(x + 3, 0, 6) / 6`."""
    raise NotImplementedError(name)

  def hard_sigmoid(self, x: Tensor, name: str) -> Tensor:
    """`clip(x + 3, 0, 6) / 6`."""
    raise NotImplementedError(name)

  def scale(self, x: Tensor, gate: Tensor, name: str) -> Tensor:
    """The map x times `[b, c]`."""
    raise NotImplementedError(name)


# ONNX and CoreML: channels first is what their convolutions take.
class ChannelsFirst(Ops):
  """Of formats whose maps are `[b, c, h, w]`."""

  def rows(self, x, name):
    """From `[b, c, h, w]`."""
    return self.transpose(x, (0, 2, 3, 1), name)

  def map(self, x, name):
    """To `[b, c, h, w]`."""
    return self.transpose(x, (0, 3, 1, 2), name)

  def size(self, x):
    """From `[b, c, h, w]`."""
    return x.shape[2:4]
