"""Images with one class each: the training crop, the evaluation crop."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data import randaugment
from mobilevit_jax.data.transforms import Arrays
from mobilevit_jax.data.transforms import geometry
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.data.transforms import Spec


@dataclasses.dataclass(frozen=True)
class ClassifyTransform:
  """What is done to an image; the defaults are the paper's (4.1).

  Attributes:
    crop_scale: least and most area of the random crop, as parts of the image.
    crop_ratio: least and most width / height of the crop.
    flip: probability of a horizontal flip.
    randaugment_ops: operations of RandAugment; 0 for none.
    randaugment_magnitude: their strength, from 0 to 10.
    color_jitter: strength of random brightness, contrast and saturation.
    erase: probability of overwriting a random box with noise.
    preset: the evaluation crop, one of `presets.PRESETS`.
    resize_size: shorter side before that crop, in pixels; None for the
      preset's share of the size.
    max_pixels: the most that an image may have to be decoded.
  """

  crop_scale: tuple[float, float] = (0.08, 1.0)
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: float = 0.5
  randaugment_ops: int = 0
  randaugment_magnitude: float = 9.0
  color_jitter: float = 0.0
  erase: float = 0.0
  preset: str = "cvnets"
  resize_size: int | None = None
  max_pixels: int = augment.MAX_PIXELS

  def __post_init__(self):
    # The ranges, by the names that a config has.
    """Checks the ranges."""
    low, high = self.crop_scale
    if not 0 < low <= high <= 1:
      raise ValueError(
        f"crop_scale={self.crop_scale} must rise and lie in (0, 1]"
      )
    low, high = self.crop_ratio
    if not 0 < low <= high:
      raise ValueError(f"crop_ratio={self.crop_ratio} must rise from above 0")
    if self.randaugment_ops < 0:
      raise ValueError(
        f"randaugment_ops={self.randaugment_ops} must be at least 0"
      )
    for name, most in (
      ("flip", 1),
      ("erase", 1),
      ("color_jitter", 1),
      ("randaugment_magnitude", randaugment.MAX_MAGNITUDE),
    ):
      if not 0 <= getattr(self, name) <= most:
        raise ValueError(
          f"{name}={getattr(self, name)} must lie in [0, {most}]"
        )
    presets.check(self.preset, 1)

  def spec(self, size: int, *, train: bool) -> Spec:
    """`images` uint8 [size, size, 3] and `labels`, -1 where not known."""
    if not train:
      presets.check(self.preset, size, self.resize_size)
    return {"images": ((size, size, 3), np.uint8), "labels": ((), np.int32)}

  def decode(self, example: examples.Example) -> examples.Example:
    """The example with pixels for its image."""
    pixels = augment.decode(example.image, example.name, self.max_pixels)
    return dataclasses.replace(example, image=pixels)

  def train(
    self, example: examples.Example, size: int, rng: np.random.Generator
  ) -> Arrays:
    """A random crop of the image, flipped and augmented."""
    # --- Geometry: one crop and flip, in one resize.
    pixels = np.asarray(example.image)
    height, width = pixels.shape[:2]
    box = augment.crop_box(
      height, width, rng, scale=self.crop_scale, ratio=self.crop_ratio
    )
    # Always draws, so that `flip` has no effect on later draws.
    flip = rng.random() < self.flip
    image = geometry.Affine.crop(box, size, size, flip=flip).pixels(pixels)
    # --- Colours, in the order of the published recipes.
    # What is off draws nothing: the paper's recipe needs these draws alone.
    if self.randaugment_ops:
      image = randaugment.rand_augment(
        image,
        rng,
        num_ops=self.randaugment_ops,
        magnitude=self.randaugment_magnitude,
      )
    if self.color_jitter:
      image = randaugment.color_jitter(image, rng, self.color_jitter)
    if self.erase:
      image = augment.random_erase(image, rng, self.erase)
    return {"images": image, "labels": example.target["label"]}

  def evaluate(self, example: examples.Example, size: int) -> Arrays:
    """The centre crop that the preset makes."""
    crop = presets.Crop(self.preset, size, self.resize_size)
    return {
      "images": crop(example.image, example.name),
      "labels": example.target.get("label", -1),
    }

  def preprocessing(self, size: int) -> dict[str, Any]:
    """The centre crop; see `transforms.Portable`."""
    crop = presets.Crop(self.preset, size, self.resize_size)
    return crop.preprocessing()
