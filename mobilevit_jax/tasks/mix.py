"""Mixup and CutMix: images that are blends of two, with two labels.

On the device, in the train step: an image is blended with its neighbour in the
batch, which a shuffled epoch makes a random one. Sources: Zhang et al. 2017
(arXiv 1710.09412) and Yun et al. 2019 (arXiv 1905.04899).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Mix:
  """How images are blended; by default not at all.

  Attributes:
    mixup: alpha of Mixup's Beta(alpha, alpha); 0 for none.
    cutmix: alpha of CutMix's; 0 for none. With both on, either is drawn for
      each image, evenly.
  """

  mixup: float = 0.0
  cutmix: float = 0.0

  def __post_init__(self):
    """Checks the range."""
    for name, alpha in dataclasses.asdict(self).items():
      if not (alpha >= 0 and alpha < float("inf")):
        raise ValueError(f"{name}={alpha} must be a number from 0 up")

  def __call__(
    self, images: jax.Array, labels: jax.Array, key: Any
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Blends each image with the one before it.

    Args:
      images: float `[b, h, w, 3]`.
      labels: int `[b]`.
      key: of the random draws.

    Returns:
      The images; the others' labels, int `[b]`; the share of an image that is
      its own, float `[b]`.
    """
    keys = jax.random.split(key, 4)
    others, other_labels = jnp.roll(images, 1, axis=0), jnp.roll(labels, 1)
    b = len(images)
    whole = _beta(keys[0], self.mixup, b)
    inside, kept = _boxes(keys[1], _beta(keys[2], self.cutmix, b), images.shape)
    cut = jax.random.bernoulli(keys[3], 0.5, (b,))
    if not (self.mixup and self.cutmix):
      cut = jnp.full(b, bool(self.cutmix))
    share = jnp.where(cut, kept, whole)
    # Of each pixel: in a box nothing of its own, outside of it all.
    own = jnp.where(_wide(cut), 1.0 - inside, _wide(whole))
    mixed = own * images + (1 - own) * others
    return mixed.astype(images.dtype), other_labels, share


def _beta(key: Any, alpha: float, count: int) -> jax.Array:
  if not alpha:
    return jnp.ones(count)
  return jax.random.beta(key, alpha, alpha, (count,))


def _boxes(
  key: Any, share: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """Boxes of `1 - share` of the image, cut off at its edges.

  Returns:
    1 inside and 0 outside, `[b, h, w, 1]`; the share outside, `[b]`.
  """
  b, h, w, _ = shape
  centers = jax.random.uniform(key, (2, b))
  side = jnp.sqrt(1 - share)
  inside = []
  for size, center in zip((h, w), centers, strict=True):
    half = side * size / 2
    low = jnp.round(jnp.clip(center * size - half, 0, size))
    high = jnp.round(jnp.clip(center * size + half, 0, size))
    places = jnp.arange(size)
    inside.append((places >= low[:, None]) & (places < high[:, None]))
  box = inside[0][:, :, None] & inside[1][:, None, :]
  return box[..., None].astype(share.dtype), 1 - jnp.mean(box, axis=(1, 2))


def _wide(values: jax.Array) -> jax.Array:
  return values[:, None, None, None]
