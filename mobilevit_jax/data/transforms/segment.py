"""Images with a class for each pixel: one matrix for the image and its mask."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags
from PIL import Image

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data.transforms import Arrays
from mobilevit_jax.data.transforms import geometry
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.data.transforms import Size
from mobilevit_jax.data.transforms import Spec

# A label of Pascal VOC's masks, and of what padding adds.
IGNORED = 255
# "stretch": to size x size, as ml-cvnets v0.1 judged the published weights.
# "aspect": the short side to the size, as it does since v0.2. "slide": as that,
# and the task slides a window over it.
PROTOCOLS = ("stretch", "aspect", "slide")
_CROP_TRIES = 10


@dataclasses.dataclass(frozen=True)
class SegmentTransform:
  """What is done to an image and its mask; the defaults are the paper's.

  Those are ml-cvnets v0.1's (appendix D of the paper): resize, crop, flip. The
  options from `long_side` to `rotation` are what ml-cvnets main adds
  (`data/datasets/segmentation/base_segmentation.py`).

  Attributes:
    short_side: least and most of the short side after the random resize, as
      parts of the crop's side: 256 and 1024 pixels of 512.
    flip: probability of a horizontal flip.
    long_side: the most of the long side after the resize, as a part of the
      crop's side; None for no limit.
    pad: whether an image that is smaller than the crop is padded, with black
      and ignored pixels, at the right and below; else it is enlarged.
    most_of_one: the largest share of a crop's pixels, without ignored ones,
      that may be of one class: ten crops are tried for that. 1 for any.
    blur: probability of a Gaussian blur, of a radius up to 1 pixel.
    photometric: whether brightness, contrast, saturation, hue and the order
      of the channels are drawn.
    rotation: most degrees of a rotation, always drawn; 0 for none.
    protocol: of evaluation, one of `PROTOCOLS`.
    multiple: what both sides are multiples of where the aspect is kept: the
      net's output stride.
    max_pixels: the most that an image may have to be decoded.
  """

  short_side: tuple[float, float] = (0.5, 2.0)
  flip: float = 0.5
  long_side: float | None = None
  pad: bool = False
  most_of_one: float = 1.0
  blur: float = 0.0
  photometric: bool = False
  rotation: float = 0.0
  protocol: str = "stretch"
  multiple: int = 16
  max_pixels: int = augment.MAX_PIXELS

  def __post_init__(self):
    """Checks the ranges."""
    low, high = self.short_side
    if not 0 < low <= high:
      raise ValueError(f"short_side={self.short_side} must rise from above 0")
    if self.long_side is not None and self.long_side <= 0:
      raise ValueError(f"long_side={self.long_side} must be above 0")
    for name, least, most in (
      ("flip", 0, 1),
      ("blur", 0, 1),
      ("most_of_one", 0.1, 1),
      ("rotation", 0, 180),
    ):
      if not least <= getattr(self, name) <= most:
        raise ValueError(
          f"{name}={getattr(self, name)} must lie in [{least}, {most}]"
        )
    if self.protocol not in PROTOCOLS:
      raise ValueError(
        f"protocol={self.protocol!r} must be one of {', '.join(PROTOCOLS)}"
      )
    if self.multiple < 1:
      raise ValueError(f"multiple={self.multiple} must be at least 1")

  @property
  def keeps_aspect(self) -> bool:
    """Whether evaluated images differ in shape."""
    return self.protocol != "stretch"

  def spec(self, size: Size, *, train: bool) -> Spec:
    """`images` uint8 [h, w, 3]; to train also `masks` uint8 [h, w]."""
    h, w = (size, size) if isinstance(size, int) else size
    spec: Spec = {"images": ((h, w, 3), np.uint8)}
    return spec | {"masks": ((h, w), np.uint8)} if train else spec

  def decode(self, example: examples.Example) -> examples.Example:
    """The example with pixels, of the size that its mask has."""
    pixels = augment.decode(example.image, example.name, self.max_pixels)
    mask = example.target.get("mask")
    if mask is not None and mask.shape != pixels.shape[:2]:
      (h, w), (height, width) = mask.shape, pixels.shape[:2]
      raise examples.ImageError(
        f"{example.name}: its mask has {h} x {w} pixels, the image "
        f"{height} x {width}"
      )
    return dataclasses.replace(example, image=pixels)

  def train(
    self, example: examples.Example, size: int, rng: np.random.Generator
  ) -> Arrays:
    """A random crop of the resized image, flipped and augmented."""
    # --- Scale: drawn for the short side, in whole pixels.
    pixels, mask = np.asarray(example.image), example.target["mask"]
    height, width = mask.shape
    scale = self._scale(height, width, size, rng)
    resized = [max(round(scale * side), 1) for side in mask.shape]
    # --- Flip, rotation, crop: one matrix for image and mask.
    # Always draws, so that `flip` has no effect on later draws.
    flip = rng.random() < self.flip
    angle = rng.uniform(-self.rotation, self.rotation)
    for attempt in range(_CROP_TRIES + 1):
      # A corner beyond the image where it is smaller, which pads it.
      corner = [rng.integers(max(side - size, 0) + 1) for side in resized]
      move = self._move(mask.shape, resized, corner, size, flip, angle)
      # The mask alone decides whether a crop is taken, so pixels move once.
      moved = move.mask(mask, IGNORED)
      if attempt == _CROP_TRIES or self._is_mixed(moved):
        break
    # --- Pixels.
    image = move.pixels(pixels)
    if self.blur and rng.random() < self.blur:
      image = cv2.GaussianBlur(image, (0, 0), max(rng.random(), 1e-3))
    if self.photometric:
      image = distort(image, rng)
    return {"images": image, "masks": moved}

  def _scale(
    self, h: int, w: int, size: int, rng: np.random.Generator
  ) -> float:
    """What both sides are multiplied by."""
    # In pixels, from the image's own shorter side.
    low, high = (round(size * side) for side in self.short_side)
    scale = rng.integers(low, high + 1) / min(h, w)
    if self.long_side is not None:
      scale = min(scale, size * self.long_side / max(h, w))
    # (The short side of what is smaller than the crop becomes the crop's.)
    return scale if self.pad else max(scale, size / min(h, w))

  def _move(
    self,
    shape: tuple[int, ...],
    resized: list[int],
    corner: list[Any],
    size: int,
    flip: bool,
    angle: float,
  ) -> geometry.Affine:
    """Resize, crop, flip and rotation, which is about the crop's centre."""
    # Applied in this order, each a product from the left: resize, shift by the
    # corner, flip, rotate.
    (h, w), (top, left) = resized, corner
    matrix = np.eye(3)
    matrix[0, 0], matrix[1, 1] = w / shape[1], h / shape[0]
    matrix[:2, 2] = -left, -top
    if flip:
      # Of the part that holds the image, so that padding stays at the right.
      matrix = np.array([[-1, 0, min(size, w)], [0, 1, 0], [0, 0, 1]]) @ matrix
    if angle:
      turn = np.eye(3)
      turn[:2] = cv2.getRotationMatrix2D((size / 2, size / 2), angle, 1)
      matrix = turn @ matrix
    return geometry.Affine(matrix[:2], size, size)

  def _is_mixed(self, mask: np.ndarray) -> bool:
    """Whether a crop has two classes, none of too large a share."""
    if self.most_of_one == 1:
      return True
    # Ignored pixels are not of any class, and don't count.
    counts = np.bincount(mask.ravel(), minlength=256)[:IGNORED]
    many = np.count_nonzero(counts) > 1
    return bool(many and counts.max() <= self.most_of_one * counts.sum())

  def shape(self, example: examples.Example, size: int) -> tuple[int, int]:
    """The evaluated shape in the protocol "aspect"; reads the header alone."""
    h, w = _shape(example)
    return self._floored(*_short_side(h, w, size))

  def _floored(self, h: int, w: int) -> tuple[int, int]:
    # To what the net's stride divides, but at least one multiple.
    multiple = self.multiple
    return (
      max(h // multiple, 1) * multiple,
      max(w // multiple, 1) * multiple,
    )

  def evaluate(self, example: examples.Example, size: Size) -> Arrays:
    """The image as the protocol resizes it, bilinearly."""
    pixels = np.asarray(example.image)
    if isinstance(size, int):
      # ml-cvnets resizes twice: to the short side, then, with aligned corners,
      # to what the net divides. Both are repeated here.
      return {"images": cv2.resize(pixels, (size, size))}
    h, w = pixels.shape[:2]
    # The short side is a multiple already, or it is the one that was floored.
    height, width = _short_side(h, w, min(size))
    if self._floored(height, width) != size:
      height, width = size
    resized = cv2.resize(pixels, (width, height))
    return {"images": resize_aligned(resized, *size)}

  def preprocessing(self, size: int) -> dict[str, Any]:
    """The square of the protocol "stretch"; see `transforms.Portable`.

    The other protocols have images of many shapes, and a file one.
    """
    return presets.stretch(size)


def _short_side(h: int, w: int, size: int) -> tuple[int, int]:
  """Sides whose shorter one is `size`; the other is cut to whole pixels."""
  return (size, int(w * size / h)) if h <= w else (int(h * size / w), size)


def _shape(example: examples.Example) -> tuple[int, int]:
  """Height and width of an image, of an encoded one by its header."""
  if isinstance(example.image, np.ndarray):
    return example.image.shape[:2]
  # The header alone: EXIF's orientation too is in it.
  try:
    with Image.open(io.BytesIO(example.image)) as image:
      width, height = image.size
      turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
  except (
    *(OSError, SyntaxError, ValueError),
    Image.DecompressionBombError,
  ) as error:
    raise examples.ImageError(f"{example.name}: {error}") from error
  return (width, height) if turned else (height, width)


def resize_aligned(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 `[h, w, 3]` resized so that the corners' centres meet.

  ml-cvnets resizes so, in floats, to what its net divides; here the result is
  rounded to levels. (OpenCV knows no such resize.)
  """
  result = image.astype(np.float32)
  for axis, to in enumerate((height, width)):
    size = image.shape[axis]
    if to == size:
      continue
    # Places of the result among the input's pixels; first and last coincide.
    places = np.arange(to) * ((size - 1) / max(to - 1, 1))
    low = np.minimum(places.astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    share = (places - low).astype(np.float32)
    share = share.reshape([-1 if i == axis else 1 for i in range(3)])
    below, above = np.take(result, low, axis), np.take(result, high, axis)
    result = below + share * (above - below)
  return np.rint(result).astype(np.uint8)


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """ml-cvnets main's photometric distortion of uint8 `[h, w, 3]`.

  Each with probability 0.5: brightness times U(0.875, 1.125), contrast times
  U(0.5, 1.5) before or after the rest, saturation times U(0.5, 1.5), hue plus
  U(-0.05, 0.05) of the circle, a permutation of the channels.
  """
  on = rng.random(6) < 0.5
  factors = rng.uniform((0.875, 0.5, 0.5, -0.05), (1.125, 1.5, 1.5, 0.05))
  order = rng.permutation(3)
  brightness, contrast, saturation, hue = factors
  x = image.astype(np.float32)
  if on[0]:
    x = np.clip(x * np.float32(brightness), 0, 255)
  if on[1] and on[2]:
    x = _contrast(x, contrast)
  if on[3] or on[4]:
    hsv = cv2.cvtColor(x / np.float32(255), cv2.COLOR_RGB2HSV)
    if on[3]:
      hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(saturation), 0, 1)
    if on[4]:
      hsv[..., 0] = (hsv[..., 0] + np.float32(360 * hue)) % 360
    x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)
  if on[1] and not on[2]:
    x = _contrast(x, contrast)
  if on[5]:
    x = x[..., order]
  return np.rint(np.clip(x, 0, 255)).astype(np.uint8)


def _contrast(x: np.ndarray, factor: float) -> np.ndarray:
  """Away from the mean of the grey image, or towards it."""
  grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)
  mean = np.float32(grey.mean(dtype=np.float64))
  return np.clip(mean + np.float32(factor) * (x - mean), 0, 255)
