"""The three evaluation crops that published MobileViT weights are used with.

- `cvnets`: OpenCV, shorter side 288, bilinear, centre 256; the paper's own, and
  that of weights trained here. OpenCV does not smooth when it shrinks.
- `hf`: the same sizes, by Pillow, which smooths; transformers' processor as
  Apple's weights were published with, whose present defaults are another crop.
- `timm`: Pillow, shorter side 284 (256 / 0.9), bicubic, centre 256.

The first and the others differ by tens of the 255 levels on photographs: they
are different resizes, not roundings of one.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image

from mobilevit_jax.data import augment

PRESETS = ("cvnets", "timm", "hf")
# No net is used at more; an image of it takes 200 MB as float32.
MAX_SIZE = 4096

# How each makes the shorter side, and whether it smooths where that shrinks.
_INTERPOLATION = {
  "cvnets": ("bilinear", False),
  "hf": ("bilinear", True),
  "timm": ("bicubic", True),
}
_TIMM_CROP = 0.9  # `crop_pct` of its pretrained configurations
# Longer images are cut first, as in `augment`: a line of pixels would else
# become gigabytes, of which the crop takes a square.
_LONGEST = 8


def preprocess(
  image: bytes | np.ndarray,
  preset: str = "cvnets",
  size: int = 256,
  *,
  resize_size: int | None = None,
  name: str = "image",
) -> np.ndarray:
  """One image, decoded and cropped for evaluation.

  Args:
    image: an encoded file, or uint8 `[h, w, 3]` in RGB order. Files are decoded
      alike for every preset (`augment.decode`: EXIF rotation is applied).
    preset: one of `PRESETS`.
    size: of the result, in pixels.
    resize_size: shorter side after resizing, in pixels; by default the preset's
      share of `size`.
    name: what to call the image in errors.

  Returns:
    uint8 `[size, size, 3]`, RGB. Weights for BGR are turned when loaded.

  Raises:
    ValueError: for an unknown preset, a size below 1 or above `MAX_SIZE`, or
      an image that can't be decoded (`examples.ImageError`).
  """
  check(preset, size, resize_size)
  pixels = augment.decode(image, name)
  # Sizes between the usual ones keep the preset's share of the crop.
  shorter = resize_size or _shorter(preset, size)
  if preset == "cvnets":
    return augment.resize_and_center_crop(pixels, size, resize_size=shorter)
  # Pillow's resize is an average over the shrunk pixel: "antialias".
  if preset == "hf":
    resized = _resize(pixels, shorter, Image.Resampling.BILINEAR)
    return _center(resized, size, size, math.floor)
  resized = _resize(pixels, shorter, Image.Resampling.BICUBIC)
  # torchvision rounds half a pixel to the even side.
  return _center(resized, size, size, round)


@dataclasses.dataclass(frozen=True)
class Crop:
  """Which part of an image is looked at: the arguments of `preprocess`."""

  preset: str = "cvnets"
  size: int = 256
  resize_size: int | None = None

  def __post_init__(self):
    check(self.preset, self.size, self.resize_size)

  @property
  def resize(self) -> int:
    """Shorter side before the crop, in pixels, whoever chose it."""
    return self.resize_size or _shorter(self.preset, self.size)

  def fields(self) -> dict[str, Any]:
    """What a transform of classification calls it, but for the size."""
    return {"preset": self.preset, "resize_size": self.resize_size}

  def preprocessing(self) -> dict[str, Any]:
    """See `transforms.Portable`."""
    interpolation, antialias = _INTERPOLATION[self.preset]
    return {
      "resize": "crop",
      "shorter_side": self.resize,
      "size": self.size,
      "interpolation": interpolation,
      "antialias": antialias,
      "preset": self.preset,
    }

  def __call__(self, image: bytes | np.ndarray, name: str) -> np.ndarray:
    """`preprocess`, for errors of an image called `name`."""
    return preprocess(
      image, self.preset, self.size, resize_size=self.resize_size, name=name
    )


def stretch(size: int) -> dict[str, Any]:
  """The `transforms.Portable` of a whole image that becomes a square."""
  # The same words as `Crop.preprocessing`: pages and files read both.
  return {
    "resize": "stretch",
    "size": size,
    "interpolation": "bilinear",
    "antialias": False,
  }


def choose(
  dialect: str,
  own: Mapping[str, Any] | None = None,
  *,
  preset: str | None = None,
  size: int | None = None,
) -> Crop:
  """The crop that weights are used with.

  Args:
    dialect: of their names, which tells whose they are.
    own: of a run of ours, how it is evaluated: arguments of `Crop`.
    preset: asked for instead; images are then resized as it says.
    size: asked for instead, in pixels; what is cut off stays the same share.
  """
  # ml-cvnets' weights and those of a run of ours have the paper's crop.
  published = dialect if dialect in PRESETS else "cvnets"
  crop = Crop(**(own or {"preset": published}))
  if preset is not None and preset != crop.preset:
    crop = Crop(preset, crop.size)
  if size is not None:
    # Another size keeps the share that is cut off.
    resize_size = crop.resize_size
    if resize_size is not None:
      resize_size = round(resize_size * size / crop.size)
    crop = Crop(crop.preset, size, resize_size)
  return crop


def check(preset: str, size: int, resize_size: int | None = None) -> None:
  """Raises ValueError for arguments that `preprocess` can't take."""
  if preset not in PRESETS:
    raise ValueError(f"preset={preset!r} must be one of {', '.join(PRESETS)}")
  if not 1 <= size <= MAX_SIZE:
    raise ValueError(f"size={size} must be at least 1 and at most {MAX_SIZE}")
  if resize_size is not None and not size <= resize_size <= 2 * MAX_SIZE:
    raise ValueError(
      f"resize_size={resize_size} must be at least size={size} and at most "
      f"{2 * MAX_SIZE}"
    )


def _shorter(preset: str, size: int) -> int:
  """The preset's shorter side for a crop of `size`, in pixels."""
  if preset == "timm":
    return math.floor(size / _TIMM_CROP)
  return round(size * augment.EVAL_RESIZE)


def _resize(
  pixels: np.ndarray, shorter: int, resampling: Image.Resampling
) -> np.ndarray:
  height, width = pixels.shape[:2]
  longest = _LONGEST * min(height, width)
  pixels = _center(pixels, min(height, longest), min(width, longest), round)
  height, width = pixels.shape[:2]
  # The longer side is cut to whole pixels, not rounded, as in torchvision.
  if width <= height:
    target = shorter, int(shorter * height / width)
  else:
    target = int(shorter * width / height), shorter
  image = Image.fromarray(np.ascontiguousarray(pixels))
  return np.asarray(image.resize(target, resampling))


def _center(
  image: np.ndarray, height: int, width: int, whole: Callable[[float], int]
) -> np.ndarray:
  top = whole((image.shape[0] - height) / 2)
  left = whole((image.shape[1] - width) / 2)
  return image[top : top + height, left : left + width]
