"""Thumbnails as data URIs."""

import base64

import cv2
import numpy as np

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples

_SIDE = 224  # pixels, of the longer side
_QUALITY = 82


def thumbnail(
  source: examples.Source, index: int, max_pixels: int = augment.MAX_PIXELS
) -> tuple[str, bool]:
  """A small copy of an image.

  Args:
    source: the images.
    index: the image's number there.
    max_pixels: the most that an image may have to be decoded.

  Returns:
    The data URI, and whether the image is so small that it is shown enlarged.

  Raises:
    examples.ImageError: if it is broken.
  """
  example = source[index]
  pixels = augment.decode(example.image, example.name, max_pixels)
  height, width = pixels.shape[:2]
  scale = _SIDE / max(height, width)
  if scale < 1:
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
  small = max(height, width) < 64
  # JPEG's blocks would show in an enlarged image.
  kind, options = (
    ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
  )
  bgr = np.ascontiguousarray(pixels[..., ::-1])
  encoded = cv2.imencode(f".{kind}", bgr, options)[1].tobytes()
  text = base64.b64encode(encoded).decode("ascii")
  return f"data:image/{kind};base64,{text}", small
