"""RandAugment: a few image operations, drawn evenly, of one strength.

Source: Cubuk et al. 2019 (arXiv 1909.13719): its fourteen operations. As in the
paper one magnitude, from 0 to 10, sets them all; signs are drawn. Pillow does
the work.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

MAX_MAGNITUDE = 10

_GREY = (128, 128, 128)  # where an operation moves the image away from

# What a magnitude of 10 does.
_DEGREES = 30
_SHEAR = 0.3  # parts of the side, as the shift
_SHIFT = 0.3
_ENHANCE = 0.9  # factors from 0.1 to 1.9
_POSTERIZE_BITS = 4  # taken away from 8

_Matrix = tuple[float, float, float, float, float, float]
# Takes the image, a strength in [0, 1], and a sign.
_Operation = Callable[[Image.Image, float, int], Image.Image]


def rand_augment(
  image: np.ndarray,
  rng: np.random.Generator,
  *,
  num_ops: int = 2,
  magnitude: float = 9,
) -> np.ndarray:
  """Applies `num_ops` random operations, one after the other.

  Args:
    image: uint8 [h, w, 3], RGB.
    rng: source of randomness.
    num_ops: how many operations; one may come twice.
    magnitude: strength, from 0 to `MAX_MAGNITUDE`.

  Returns:
    uint8 [h, w, 3].
  """
  picture = Image.fromarray(image)
  for index in rng.integers(len(OPERATIONS), size=num_ops):
    # Drawn for each operation, also for those without a sign, so that the next
    # draws stay where they are when an operation changes.
    operation = OPERATIONS[_NAMES[index]]
    sign = 1 if rng.random() < 0.5 else -1
    picture = operation(picture, magnitude / MAX_MAGNITUDE, sign)
  return np.asarray(picture)


def color_jitter(
  image: np.ndarray, rng: np.random.Generator, strength: float
) -> np.ndarray:
  """Changes brightness, contrast and saturation, in a random order.

  Args:
    image: uint8 [h, w, 3], RGB.
    rng: source of randomness.
    strength: each factor is drawn from [1 - strength, 1 + strength].

  Returns:
    uint8 [h, w, 3].
  """
  kinds = [
    ImageEnhance.Brightness,
    ImageEnhance.Contrast,
    ImageEnhance.Color,
  ]
  picture = Image.fromarray(image)
  for index in rng.permutation(len(kinds)):
    factor = rng.uniform(1 - strength, 1 + strength)
    picture = kinds[index](picture).enhance(factor)
  return np.asarray(picture)


def _affine(image: Image.Image, matrix: _Matrix) -> Image.Image:
  """Moves pixels by the inverse map, about the image's centre."""
  a, b, c, d, e, f = matrix
  # Pillow's transform takes a result's pixel to a source's, so a map about the
  # centre m is x -> A (x - m) + m + t.
  x, y = image.width / 2, image.height / 2  # from the first pixel's corner
  centred = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
  return image.transform(
    image.size,
    Image.Transform.AFFINE,
    centred,
    Image.Resampling.BILINEAR,
    fillcolor=_GREY,
  )


def _enhance(kind: Callable[..., ImageEnhance._Enhance]) -> _Operation:
  def operation(image: Image.Image, amount: float, sign: int) -> Image.Image:
    # 1 is the image as it is; below 1 it moves to grey (or black, or blurred).
    return kind(image).enhance(1 + sign * _ENHANCE * amount)

  return operation


def _rotate(image: Image.Image, amount: float, sign: int) -> Image.Image:
  angle = np.deg2rad(sign * _DEGREES * amount)
  cos, sin = float(np.cos(angle)), float(np.sin(angle))
  return _affine(image, (cos, sin, 0, -sin, cos, 0))


def _shear_x(image: Image.Image, amount: float, sign: int) -> Image.Image:
  return _affine(image, (1, sign * _SHEAR * amount, 0, 0, 1, 0))


def _shear_y(image: Image.Image, amount: float, sign: int) -> Image.Image:
  return _affine(image, (1, 0, 0, sign * _SHEAR * amount, 1, 0))


def _translate_x(image: Image.Image, amount: float, sign: int) -> Image.Image:
  shift = sign * _SHIFT * amount * image.width
  return _affine(image, (1, 0, shift, 0, 1, 0))


def _translate_y(image: Image.Image, amount: float, sign: int) -> Image.Image:
  shift = sign * _SHIFT * amount * image.height
  return _affine(image, (1, 0, 0, 0, 1, shift))


def _posterize(image: Image.Image, amount: float, sign: int) -> Image.Image:
  del sign
  return ImageOps.posterize(image, 8 - round(_POSTERIZE_BITS * amount))


def _solarize(image: Image.Image, amount: float, sign: int) -> Image.Image:
  del sign
  # Pixels from the threshold on are inverted: a threshold of 256 inverts none.
  return ImageOps.solarize(image, round(256 * (1 - amount)))


def _always(function: Callable[[Image.Image], Image.Image]) -> _Operation:
  return lambda image, amount, sign: function(image)


# The paper's fourteen operations, in its order (section 3).
OPERATIONS: dict[str, _Operation] = {
  "identity": _always(lambda image: image),
  "autocontrast": _always(ImageOps.autocontrast),
  "equalize": _always(ImageOps.equalize),
  "rotate": _rotate,
  "solarize": _solarize,
  "color": _enhance(ImageEnhance.Color),
  "posterize": _posterize,
  "contrast": _enhance(ImageEnhance.Contrast),
  "brightness": _enhance(ImageEnhance.Brightness),
  "sharpness": _enhance(ImageEnhance.Sharpness),
  "shear_x": _shear_x,
  "shear_y": _shear_y,
  "translate_x": _translate_x,
  "translate_y": _translate_y,
}
_NAMES = tuple(OPERATIONS)
