"""Which pixels a MobileViT block's attention looks at.

Letters as in `models.mobilevit`: `p` places in a 2 x 2 patch, `n` patches,
`k` heads; and `l` transformer layers of a block.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.models import mobilevit
from mobilevit_jax.visualize import features


@dataclasses.dataclass(frozen=True)
class AttentionMaps:
  """Attention of one MobileViT block to one image.

  Attributes:
    weights: float32 `[l, p, k, n, n]`: of transformer layer, place, head and
      query patch, the share of each patch. Rows sum to 1.
    grid: height and width of the map that the block unfolded: its own, or one
      more where that is odd.
    image_size: height and width of the image, in pixels.
  """

  weights: np.ndarray
  grid: tuple[int, int]
  image_size: tuple[int, int]

  def of_pixel(self, row: int, column: int) -> np.ndarray:
    """Where one pixel of the image looks.

    Its place in the 2 x 2 patch of the map says which of the four sequences it
    is in, and its patch, which row of the weights is its own.

    Args:
      row: of the image, in pixels from the top.
      column: of the image, in pixels from the left.

    Returns:
      `[l, k, h, w]` over `grid`: each sums to 1, and is zero but at the pixels
      of the same place.

    Raises:
      ValueError: for a pixel outside of the image.
    """
    # --- The pixel of the map that covers the image's pixel.
    height, width = self.image_size
    if not (0 <= row < height and 0 <= column < width):
      raise ValueError(
        f"pixel ({row}, {column}) lies outside of the image of {height} x "
        f"{width} pixels"
      )
    h, w = self.grid
    # The map's pixel that covers the image's, numbered row by row.
    number = row * h // height * w + column * w // width
    # The model's own unfold and fold say which pixel is where.
    # --- Its sequence (one of four) and its patch.
    order = mobilevit.unfold(jnp.arange(h * w).reshape(1, h, w, 1))
    ((_, place, patch, _),) = np.argwhere(np.asarray(order) == number)
    # Of the pixel's own patch, in its own place: all layers and heads.
    # --- The row of the weights that is its own, put back as a map.
    shares = self.weights[:, place, :, patch]  # [l, k, n]
    tokens = np.zeros((shares[..., 0].size, 4, shares.shape[-1], 1), np.float32)
    # Zeros at the other three places: no attention crosses them.
    tokens[:, place, :, 0] = shares.reshape(len(tokens), -1)
    folded = mobilevit.fold(jnp.asarray(tokens), h, w)
    return np.asarray(folded).reshape(*shares.shape[:2], h, w)


@dataclasses.dataclass(frozen=True)
class ContextScores:
  """Where the separable attention of one block gathers its context.

  It has no map for each pixel: all patches of a place share one softmax.

  Attributes:
    scores: float32 `[l, p, n]`: of transformer layer and place, the share of
      each patch. Rows sum to 1.
    grid: height and width of the map that the block unfolded.
  """

  scores: np.ndarray
  grid: tuple[int, int]

  def maps(self) -> np.ndarray:
    """The scores at their pixels, `[l, h, w]` over `grid`; each sums to 4."""
    # `[l, p, n, 1]`: one channel, and the layers for a batch.
    folded = mobilevit.fold(jnp.asarray(self.scores[..., None]), *self.grid)
    return np.asarray(folded)[..., 0]


def context_scores(model: Any, image: Any) -> dict[str, ContextScores]:
  """Context scores of every block with separable attention, by stage.

  Args:
    model: from `create_model`; it is left as it is.
    image: `[h, w, 3]`, RGB: uint8, or float in [0, 1].

  Returns:
    `"stage3"`, `"stage4"` and `"stage5"` to their scores.

  Raises:
    ValueError: for anything but one image, one that is too small, or a net
      whose patches attend to each other, which `attention_maps` shows.
  """
  # unfold makes odd maps even, so the grid is one more.
  return {
    stage: ContextScores(np.asarray(seen[:, 0]), (h + h % 2, w + w % 2))
    for stage, (seen, h, w) in _watch(
      model, features.as_batch(image), 4
    ).items()
  }


def attention_maps(model: Any, image: Any) -> dict[str, AttentionMaps]:
  """Attention of every MobileViT block, by stage.

  Args:
    model: from `create_model`; it is left as it is.
    image: `[h, w, 3]`, RGB: uint8, or float in [0, 1].

  Returns:
    `"stage3"`, `"stage4"` and `"stage5"` to their maps.

  Raises:
    ValueError: for anything but one image, one that is too small, or a net
      of separable attention, which `context_scores` shows.
  """
  images = features.as_batch(image)
  size = images.shape[1:3]
  return {
    stage: AttentionMaps(
      np.asarray(seen), (h + h % 2, w + w % 2), (size[0], size[1])
    )
    for stage, (seen, h, w) in _watch(model, images, 5).items()
  }


def _watch(
  model: Any, images: jax.Array, rank: int
) -> dict[str, tuple[jax.Array, int, int]]:
  """What every block's attention weighs with, `[l, ...]`, and its map's size.

  Raises:
    ValueError: if that has not as many axes as `rank`.
  """
  # The model is taken apart, since what is recorded in a traced copy must not
  # stay in the caller's.
  graphdef, state = nnx.split(model)

  # Jitted as a whole: layer by layer, a net would be compiled in pieces.
  @jax.jit
  def run(state: Any, images: jax.Array) -> Any:
    net: Any = nnx.merge(graphdef, state)
    seen: dict[str, list[jax.Array]] = {}
    for stage, block in features.hybrid_blocks(net):
      weights = seen[stage] = []
      # The recorder stands in for the layer, inside the traced copy alone.
      for layer in block.global_rep:
        layer.attention = _Recorder(layer.attention, weights)
    maps = net.features(images)
    # The maps come too, for their sizes: they depend on the image's.
    return {stage: (jnp.stack(w), maps[stage]) for stage, w in seen.items()}

  found = sorted(run(state, images).items())
  if any(weights.ndim != rank for _, (weights, _) in found):
    raise ValueError(
      "attention_maps shows nets whose patches attend to each other, and "
      "context_scores those of separable attention; this one is of the other "
      "kind"
    )
  return {
    stage: (weights, *stage_map.shape[1:3])
    for stage, (weights, stage_map) in found
  }


class _Recorder:
  """In the place of a layer's attention, keeps its weights."""

  def __init__(self, attention: Any, weights: list[jax.Array]):
    self._attention, self._weights = attention, weights

  def __call__(self, x: jax.Array) -> jax.Array:
    y, weights = self._attention.attend(x)
    self._weights.append(weights)
    return y
