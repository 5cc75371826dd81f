"""Images with boxes: SSD's crop, photometric distortion, flip, and a square.

Sources: SSD (arXiv 1512.02325, 2.2) as ml-cvnets has it: v0.1
`data/transforms/image_opencv.py` ("v01") and its main branch `data/transforms/
image_pil.py` ("main"). Both distort before they resize; here pixels change
after, which is cheaper and differs by rounding.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data.boxes import wrong
from mobilevit_jax.data.transforms import Arrays
from mobilevit_jax.data.transforms import geometry
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.data.transforms import Spec

PHOTOMETRIC = ("none", "v01", "main")
_LEAST_IOU = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # None: the whole image
_TRIES = 40
# With them almost any image finds a crop: the rounds end a loop that could in
# theory go on for ever.
# An IoU of 1 all but never succeeds: cvnets draws a new one for ever.
_ROUNDS = 50


@dataclasses.dataclass(frozen=True)
class DetectTransform:
  """What is done to an image and its boxes.

  Attributes:
    crop: whether to take SSD's random crop.
    min_crop: least side of that crop, in pixels: 0 in ml-cvnets v0.1, 100 on
      its main branch.
    photometric: distortion of colours, one of `PHOTOMETRIC`.
    flip: probability of a horizontal flip.
    most_boxes: boxes of an image that are learnt from; more are left out, the
      smallest first.
    bad_boxes: `"clip"` cuts boxes at the image's edges and leaves out what then
      has no area, has no known class or no numbers; `"error"` refuses the
      image.
    max_pixels: the most that an image may have to be decoded.
  """

  crop: bool = True
  min_crop: int = 0
  photometric: str = "v01"
  flip: float = 0.5
  most_boxes: int = 100
  bad_boxes: str = "clip"
  max_pixels: int = augment.MAX_PIXELS

  def __post_init__(self):
    """Checks the ranges."""
    if self.photometric not in PHOTOMETRIC:
      raise ValueError(
        f"photometric={self.photometric!r} must be one of "
        f"{', '.join(PHOTOMETRIC)}"
      )
    if self.bad_boxes not in ("clip", "error"):
      raise ValueError(
        f"bad_boxes={self.bad_boxes!r} must be 'clip' or 'error'"
      )
    if not 0 <= self.flip <= 1:
      raise ValueError(f"flip={self.flip} must lie in [0, 1]")
    if self.most_boxes < 1:
      raise ValueError(f"most_boxes={self.most_boxes} must be at least 1")
    if self.min_crop < 0:
      raise ValueError(f"min_crop={self.min_crop} must be at least 0")

  def spec(self, size: int, *, train: bool) -> Spec:
    """`images`; to train also `boxes`, `classes` and `valid`, padded.

    Boxes are x0, y0, x1, y1 as parts of the image, classes from 0.
    """
    spec: Spec = {"images": ((size, size, 3), np.uint8)}
    if train:
      spec |= {
        "boxes": ((self.most_boxes, 4), np.float32),
        "classes": ((self.most_boxes,), np.int32),
        "valid": ((self.most_boxes,), np.float32),
      }
    return spec

  def decode(self, example: examples.Example) -> examples.Example:
    """The example with pixels, and boxes that can be learnt from.

    Raises:
      examples.ImageError: for a broken image, or a wrong box where `bad_boxes`
        is "error".
    """
    pixels = augment.decode(example.image, example.name, self.max_pixels)
    target = example.target
    if "boxes" in target:
      target = self._learnable(example, *pixels.shape[:2])
    return dataclasses.replace(example, image=pixels, target=target)

  def _learnable(
    self, example: examples.Example, height: int, width: int
  ) -> dict[str, np.ndarray]:
    """Boxes inside of the image, and their classes; crowds are left out."""
    target: Any = example.target
    # --- Faults, as `boxes.wrong` names them.
    faults = wrong(target, height, width)
    if self.bad_boxes == "error":
      for what, mask in faults.items():
        if mask.any():
          box = target["boxes"][mask][0].tolist()
          raise examples.ImageError(
            f"{example.name}: a box {what}, {box} in an image of {width} x "
            f"{height} (mend it, or set config.transform.bad_boxes='clip')"
          )
    del faults["outside of the image"]  # it is cut
    # --- Cut at the edges; what has no area then, goes.
    boxes = target["boxes"].clip(0, [width, height, width, height])
    lost = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    keep = ~(target["crowd"] | lost | np.any([*faults.values()], axis=0))
    return {"boxes": boxes[keep], "classes": target["classes"][keep]}

  def train(
    self, example: examples.Example, size: int, rng: np.random.Generator
  ) -> Arrays:
    """A random part of the image, distorted, and the boxes in it."""
    pixels = np.asarray(example.image)
    boxes, classes = example.target["boxes"], example.target["classes"]
    height, width = pixels.shape[:2]
    # --- The part of the image: SSD's crop, or all of it.
    part = (0, 0, height, width)
    if self.crop and len(boxes):
      part = ssd_crop(boxes, height, width, rng, self.min_crop)
    # Always draws, so that `flip` has no effect on later draws.
    flip = rng.random() < self.flip
    move = geometry.Affine.crop(part, size, size, flip=flip)
    # --- Pixels: moved, then distorted.
    image = move.pixels(pixels)
    if self.photometric != "none":
      image = _DISTORT[self.photometric](image, rng)
    # --- Boxes: those whose centre is in the part, in parts of the result.
    inside = _centers_inside(boxes, part)
    moved = move.boxes(boxes[inside]).clip(0, size) / size
    # --- If there are too many, the largest stay, in their order.
    order = np.argsort(-np.prod(moved[:, 2:] - moved[:, :2], 1), kind="stable")
    order = np.sort(order[: self.most_boxes])
    count = len(order)
    # --- Fixed shapes: padding is 0, and `valid` says what is real.
    arrays: dict[str, np.ndarray] = {"images": image}
    for name, (shape, kind) in self.spec(size, train=True).items():
      if name != "images":
        arrays[name] = np.zeros(shape, kind)
    arrays["boxes"][:count] = moved[order]
    arrays["classes"][:count] = classes[inside][order]
    arrays["valid"][:count] = 1
    return arrays

  def evaluate(self, example: examples.Example, size: int) -> Arrays:
    """The whole image, stretched to a square."""
    pixels = augment.decode(example.image, example.name)
    part = (0, 0, *pixels.shape[:2])
    return {"images": geometry.Affine.crop(part, size, size).pixels(pixels)}

  def preprocessing(self, size: int) -> dict[str, Any]:
    """The same; see `transforms.Portable`."""
    return presets.stretch(size)


def ssd_crop(
  boxes: np.ndarray,
  height: int,
  width: int,
  rng: np.random.Generator,
  min_crop: int = 0,
) -> tuple[int, int, int, int]:
  """Draws a part of the image that holds a box's centre.

  The best IoU of a box with it is at least a number that is drawn first.

  Args:
    boxes: `[n, 4]`, in pixels, at least one.
    height: of the image.
    width: of the image.
    rng: source of randomness.
    min_crop: least side, in pixels.

  Returns:
    (top, left, height, width) in pixels.
  """
  whole = (0, 0, height, width)
  # --- Draws a least IoU; tries forty crops for it; then draws anew.
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  for _ in range(_ROUNDS):
    least = _LEAST_IOU[rng.integers(len(_LEAST_IOU))]
    if least is None:
      return whole
    for _ in range(_TRIES):
      w, h = (int(rng.uniform(0.3, 1) * side) for side in (width, height))
      # Aspect ratios from 1/2 to 2 (SSD, section 2.2).
      if not (w and h and 0.5 <= h / w <= 2 and min(w, h) >= min_crop):
        continue
      # 1e-9: `uniform` of an empty range is refused.
      left = int(rng.uniform(0, width - w + 1e-9))
      top = int(rng.uniform(0, height - h + 1e-9))
      # The overlap of the crop with every box.
      low = np.maximum(boxes[:, :2], (left, top))
      high = np.minimum(boxes[:, 2:], (left + w, top + h))
      overlap = np.prod(np.maximum(high - low, 0), axis=1)
      part = (top, left, h, w)
      if (overlap / (areas + w * h - overlap)).max() < least:
        continue
      if _centers_inside(boxes, part).any():
        return part
  return whole


def _centers_inside(
  boxes: np.ndarray, part: tuple[int, int, int, int]
) -> np.ndarray:
  top, left, height, width = part
  x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
  inside = (left < x) & (x < left + width)
  return inside & (top < y) & (y < top + height)


def distort_v01(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Photometric distortion of ml-cvnets v0.1; uint8 RGB in and out.

  Each step has probability 0.5. Hue is clipped at the ends of OpenCV's scale
  of 0 to 179, not wrapped, as there.
  """
  # All draws come first, whether they are used or not: one setting must not
  # move the draws of another.
  contrast, brightness, saturation, hue, last, swap = rng.random(6) < 0.5
  factor, again, saturate = rng.uniform(0.5, 1.5, 3)
  shift, turn = (
    rng.uniform(-0.2, 0.2) * 255,
    int(rng.uniform(-0.05, 0.05) * 255),
  )
  order = rng.permutation(3)
  x = image.astype(np.float32)
  if contrast:
    x = x * factor
  if brightness:
    x = x + shift
  # To 8 bits before HSV, as v0.1 has it: OpenCV's 8-bit hue is 0 to 179.
  x = x.clip(0, 255).astype(np.uint8)
  if saturation or hue:
    hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV).astype(np.float32)
    if saturation:
      hsv[..., 1] = (hsv[..., 1] * saturate).clip(0, 255)
    if hue:
      hsv[..., 0] = (hsv[..., 0] + int(turn)).clip(0, 179)
    x = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
  # Contrast once, before or after the colours.
  if last and not contrast:
    x = (x * np.float32(again)).clip(0, 255).astype(np.uint8)
  return np.ascontiguousarray(x[..., order]) if swap else x


def distort_main(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Photometric distortion of ml-cvnets' main branch; uint8 RGB in and out.

  Contrast comes before the rest or after it, with probability 0.25 each. It
  moves values from the mean of the grey image, saturation from each pixel's
  grey, as Pillow's enhancers do; hue turns round the circle.
  """
  bright, contrast, early, saturation, hue, swap = rng.random(6) < 0.5
  brightness, turn = rng.uniform(0.875, 1.125), rng.uniform(-0.05, 0.05)
  stretch, saturate = rng.uniform(0.5, 1.5, 2)
  order = rng.permutation(3)
  x = image.astype(np.float32)

  # ITU-R BT.601's weights, as Pillow's grey has them.
  def grey(x: np.ndarray) -> np.ndarray:
    return x @ np.array([0.299, 0.587, 0.114], np.float32)

  def apart(x: np.ndarray) -> np.ndarray:
    middle = grey(x).mean()
    return ((x - middle) * stretch + middle).clip(0, 255)

  if bright:
    x = (x * brightness).clip(0, 255)
  if contrast and early:
    x = apart(x)
  if saturation:
    pale = grey(x)[..., None]
    x = ((x - pale) * saturate + pale).clip(0, 255)
  if hue:
    hsv = cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2HSV)  # degrees
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
  if contrast and not early:
    x = apart(x)
  x = np.rint(x).clip(0, 255).astype(np.uint8)
  return np.ascontiguousarray(x[..., order]) if swap else x


_DISTORT = {"v01": distort_v01, "main": distort_main}
