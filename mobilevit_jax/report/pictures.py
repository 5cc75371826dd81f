"""Thumbnails as data URIs."""

import base64
import dataclasses
import pathlib

import cv2
import numpy as np

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples

_SIDE = 224  # pixels, of the longer side
_QUALITY = 82


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture in the page.

  Attributes:
    address: its data URI.
    small: whether it has so few pixels that it is shown enlarged.
  """

  address: str
  small: bool


@dataclasses.dataclass(frozen=True)
class Place:
  """An image's file: as a whole, and with the last of its folders alone."""

  whole: str
  short: str


def place(source: examples.Source, index: int) -> Place:
  """Where an image of a source came from."""
  whole = examples.located(source, index)
  return Place(whole, "/".join(pathlib.PurePath(whole).parts[-2:]))


def thumbnail(source: examples.Source, index: int) -> Picture:
  """A small copy of an image.

  Args:
    source: the images.
    index: the image's number there.

  Raises:
    examples.ImageError: if it is broken.
  """
  return encode(shrink(pixels(source, index)))


def pixels(source: examples.Source, index: int) -> np.ndarray:
  """An image of a source, uint8 `[h, w, 3]`, RGB."""
  example = source[index]
  # It was evaluated, so it is within the run's own limit of pixels.
  return augment.decode(example.image, example.name, max_pixels=2**32)


def shrink(image: np.ndarray, side: int = _SIDE) -> np.ndarray:
  """The image, with `side` pixels on its longer side if it has more."""
  return image if max(image.shape[:2]) <= side else scale(image, side)


def scale(image: np.ndarray, side: int) -> np.ndarray:
  """The image, enlarged or reduced to `side` pixels on its longer side."""
  height, width = image.shape[:2]
  ratio = side / max(height, width)
  size = max(1, round(width * ratio)), max(1, round(height * ratio))
  # INTER_AREA averages the pixels that become one; enlarged, pixels should stay
  # visible.
  way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_NEAREST
  return cv2.resize(image, size, interpolation=way)


def encode(image: np.ndarray) -> Picture:
  """The picture of an image, uint8 `[h, w, 3]`, RGB, at its own size."""
  small = max(image.shape[:2]) < 64
  # JPEG's blocks would show in an enlarged image.
  kind, options = (
    ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
  )
  # OpenCV writes BGR.
  bgr = np.ascontiguousarray(image[..., ::-1])
  encoded = cv2.imencode(f".{kind}", bgr, options)[1].tobytes()
  text = base64.b64encode(encoded).decode("ascii")
  return Picture(f"data:image/{kind};base64,{text}", small)
