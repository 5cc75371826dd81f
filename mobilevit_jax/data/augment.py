"""Image operations: decoding, the box of a crop, erasing, the centre crop.

Images are uint8 [height, width, 3] in RGB order. The operations are those of
the published recipe (ml-cvnets v0.1, data/transforms/image_opencv.py), on
OpenCV: its bilinear resize, which does not smooth when it shrinks, is the one
that the paper's networks were trained with.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data import headers

# The largest image that is decoded, in pixels: 300 MB as RGB. Cameras reach it,
# photographs to learn from are a hundredth of it.
MAX_PIXELS = 100_000_000

# The centre crop takes 256 of 288 pixels, whatever the size (paper, 4.1).
EVAL_RESIZE = 288 / 256

# torchvision's number, which ml-cvnets has too.
_CROP_TRIES = 10
_ERASE_SCALE = (0.02, 0.4)
_ERASE_RATIO = (0.3, 1 / 0.3)

# Images longer than this many times their width are cut to it before the
# evaluation resize, which would else make gigabytes of a one-pixel line. The
# centre crop needs only 1.
_LONGEST = 8


def example_rng(seed: int, epoch: int, example_id: int) -> np.random.Generator:
  """The generator of all randomness of one example in one epoch.

  Args:
    seed: the run's seed, from 0, under 2**128.
    epoch: from 0.
    example_id: from 0.

  Returns:
    A generator that depends on the three numbers alone, so that an example's
    augmentation is the same in any batch, worker, host or resumed run.
  """
  # Philox is counter-based: other counters are other, independent streams, at
  # half the price of hashing the three numbers into a seed.
  bits = np.random.Philox(key=seed, counter=[0, example_id, epoch, 0])
  return np.random.Generator(bits)


def decode(
  image: bytes | np.ndarray, name: str, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """Decodes one image.

  JPEG and PNG become 8-bit RGB: grey is repeated, 16-bit keeps the high byte,
  CMYK is converted as Adobe writes it, an alpha channel is dropped (the colour
  under transparent pixels shows), and EXIF rotation is applied; all this as
  `cv2.imread`, with which the published networks were trained. An array is
  taken as decoded: uint8 [h, w], [h, w, 1] (grey) or [h, w, 3] (RGB).

  Args:
    image: the encoded file, or pixels.
    name: what to call the example in an error.
    max_pixels: the most that an encoded image may have, by its header.

  Returns:
    uint8 [h, w, 3], RGB.

  Raises:
    examples.ImageError: if it is empty, truncated, too large or no image.
  """
  # Some sources, such as the digits, hold pixels already.
  if isinstance(image, np.ndarray):
    return _check_pixels(image, name)
  if not image:
    raise examples.ImageError(f"{name}: the image is empty (0 bytes)")
  # The header first: a file of a kilobyte may ask for gigabytes of pixels.
  size = headers.size(image)
  if size is not None and size[0] * size[1] > max_pixels:
    raise examples.ImageError(
      f"{name}: it has {size[1]} x {size[0]} pixels, more than the "
      f"{max_pixels} that are decoded (config.transform.max_pixels)"
    )
  try:
    # Cut files are refused here: OpenCV fills what is missing with grey, and
    # says so only on stderr.
    pixels = None
    if size is not None and not headers.is_cut(image):
      data = np.frombuffer(image, np.uint8)
      pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
  except cv2.error as error:
    raise examples.ImageError(
      f"{name}: cannot be decoded: {error.err}"
    ) from error
  if pixels is None:
    raise examples.ImageError(
      f"{name}: cannot be decoded ({len(image)} bytes that begin with "
      f"{bytes(image[:8])!r}); it is truncated, or neither JPEG nor PNG"
    )
  return pixels


def _check_pixels(image: np.ndarray, name: str) -> np.ndarray:
  pixels = image[..., None] if image.ndim == 2 else image
  if (
    pixels.dtype != np.uint8
    or pixels.ndim != 3
    or pixels.shape[2] not in (1, 3)
    or not pixels.size
  ):
    raise examples.ImageError(
      f"{name}: pixels of type {image.dtype} and shape {image.shape} must be "
      "uint8 [h, w], [h, w, 1] or [h, w, 3]"
    )
  # A view that repeats the one channel, without a copy.
  return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def crop_box(
  height: int,
  width: int,
  rng: np.random.Generator,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
  """Draws the box of a random resized crop.

  Ten tries of a random area and aspect ratio; if none fits in the image, the
  largest centred box whose ratio is in range.

  Args:
    height: of the image, in pixels.
    width: of the image, in pixels.
    rng: source of randomness.
    scale: least and most area, as parts of the image's.
    ratio: least and most width / height, drawn evenly in its logarithm.

  Returns:
    (top, left, height, width) in pixels, inside the image and not empty.
  """
  # Even in the logarithm: a ratio is as likely as its inverse.
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(_CROP_TRIES):
    area = rng.uniform(*scale) * height * width
    aspect = math.exp(rng.uniform(low, high))
    # From area = w h and aspect = w / h.
    w = round(math.sqrt(area * aspect))
    h = round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      top = int(rng.integers(height - h + 1))
      left = int(rng.integers(width - w + 1))
      return top, left, h, w
  # No try fitted, as in very long images: the largest box in the middle.
  aspect = min(max(width / height, ratio[0]), ratio[1])
  h = min(height, max(1, round(width / aspect)))
  w = min(width, max(1, round(height * aspect)))
  return (height - h) // 2, (width - w) // 2, h, w


def random_erase(
  image: np.ndarray, rng: np.random.Generator, p: float
) -> np.ndarray:
  """Overwrites a random box with noise, with probability `p`.

  Source: Zhong et al. 2017 (arXiv 1708.04896): an area from 0.02 to 0.4 of the
  image, of a ratio from 0.3 to 1 / 0.3.

  Args:
    image: uint8 [h, w, 3].
    rng: source of randomness.
    p: probability.

  Returns:
    uint8 [h, w, 3]; the argument is left as it was.
  """
  if rng.random() >= p:
    return image
  height, width = image.shape[:2]
  # An erased box is drawn as a crop is, by area and ratio.
  top, left, h, w = crop_box(
    height, width, rng, scale=_ERASE_SCALE, ratio=_ERASE_RATIO
  )
  image = image.copy()
  image[top : top + h, left : left + w] = rng.integers(
    256, size=(h, w, 3), dtype=np.uint8
  )
  return image


def resize_and_center_crop(
  image: np.ndarray, size: int, *, resize_size: int | None = None
) -> np.ndarray:
  """The evaluation crop: resizes the shorter side, crops the centre.

  Args:
    image: uint8 [h, w, 3].
    size: side of the result, in pixels.
    resize_size: the shorter side before the crop, in pixels; by default
      288 / 256 of `size`.

  Returns:
    uint8 [size, size, 3].

  Raises:
    ValueError: if `resize_size` is smaller than `size`.
  """
  if resize_size is None:
    resize_size = round(size * EVAL_RESIZE)
  if resize_size < size:
    raise ValueError(
      f"resize_size={resize_size} must be at least the crop's size, {size}"
    )
  height, width = image.shape[:2]
  # Only the middle can be seen in the result: a panorama needs no resize as a
  # whole.
  longest = _LONGEST * min(height, width)
  if max(height, width) > longest:
    image = _center(image, min(height, longest), min(width, longest))
    height, width = image.shape[:2]
  # The longer side is cut to whole pixels, not rounded, as in the recipe.
  if width < height:
    image = _resize(image, int(resize_size * height / width), resize_size)
  else:
    image = _resize(image, resize_size, int(resize_size * width / height))
  return _center(image, size, size)


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _center(image: np.ndarray, height: int, width: int) -> np.ndarray:
  top = (image.shape[0] - height) // 2
  left = (image.shape[1] - width) // 2
  return image[top : top + height, left : left + width]
