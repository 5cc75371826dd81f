"""Where the pixels of an image go: one affine matrix for all that is in it.

Places are counted in pixels from the image's upper left corner: a pixel's own
edges are whole numbers, and its centre lies half a pixel further. Pixels, masks
and boxes that go through the same matrix stay together.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np


@dataclasses.dataclass(frozen=True)
class Affine:
  """A map from an image to a result of a fixed size.

  Attributes:
    matrix: float64 [2, 3]: (x, y) of the image goes to
      `matrix @ (x, y, 1)` of the result.
    height: of the result, in pixels.
    width: of the result, in pixels.
  """

  matrix: np.ndarray
  height: int
  width: int

  @classmethod
  def crop(
    cls,
    box: tuple[int, int, int, int],
    height: int,
    width: int,
    *,
    flip: bool = False,
  ) -> Affine:
    """Takes a box of the image and resizes it to the result.

    Args:
      box: (top, left, height, width) in pixels.
      height: of the result.
      width: of the result.
      flip: whether to mirror the result left to right.
    """
    top, left, box_height, box_width = box
    # Result pixels for one of the image, in each direction.
    x, y = width / box_width, height / box_height
    # x' = (x - left) width / box_width; mirrored, width minus that.
    if flip:
      row = [-x, 0, width + left * x]
    else:
      row = [x, 0, -left * x]
    return cls(np.array([row, [0, y, -top * y]]), height, width)

  def pixels(self, image: np.ndarray) -> np.ndarray:
    """The image, uint8 [h, w, 3], moved: [height, width, 3], bilinear.

    OpenCV's resize, which does not smooth when it shrinks, is the one that the
    paper's networks were trained with (ml-cvnets v0.1, `image_opencv.py`).
    """
    return self._move(image, cv2.INTER_LINEAR, cv2.INTER_LINEAR, 0)

  def mask(self, mask: np.ndarray, fill: int) -> np.ndarray:
    """Indices, uint8 [h, w], moved by the nearest; `fill` outside of it."""
    # For resizing, OpenCV's plain "nearest" is off by half a pixel.
    return self._move(mask, cv2.INTER_NEAREST_EXACT, cv2.INTER_NEAREST, fill)

  def boxes(self, boxes: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] of x0, y0, x1, y1, moved; float64, not cut at the edges.

    A box that is turned becomes the upright one around it.
    """
    # All four corners: a rotation makes a box's corners another box's.
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    moved = corners @ self.matrix[:, :2].T + self.matrix[:, 2]
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)

  def _move(
    self, image: np.ndarray, resize: int, warp: int, fill: int
  ) -> np.ndarray:
    size = self.width, self.height
    # --- A crop of whole pixels: OpenCV's resize, as the recipe has it.
    if (box := self._source_box(image.shape[0], image.shape[1])) is not None:
      top, left, bottom, right = box
      part = image[top:bottom, left:right]
      moved = cv2.resize(part, size, interpolation=resize)
      return cv2.flip(moved, 1) if self.matrix[0, 0] < 0 else moved
    # --- Anything else: its warp.
    # OpenCV counts from the centre of the first pixel.
    shifted = self.matrix.copy()
    shifted[:, 2] += shifted[:, :2].sum(axis=1) / 2 - 0.5
    # Where nothing lies outside of the image, its last pixels must not be
    # blended with the fill: half a pixel around would darken.
    inside = self._is_inside(image.shape[0], image.shape[1])
    return cv2.warpAffine(
      image,
      shifted,
      size,
      flags=warp,
      borderMode=cv2.BORDER_REPLICATE if inside else cv2.BORDER_CONSTANT,
      borderValue=(fill,) * 3,
    )

  def _is_inside(self, height: int, width: int) -> bool:
    # The corners of the result, taken back to the image.
    """Whether all of the result comes from inside of the image."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    corners = corners * (self.width, self.height) - self.matrix[:, 2]
    source = np.linalg.solve(self.matrix[:, :2], corners.T).T
    low, high = source.min(), (source - (width, height)).max()
    return bool(low >= -1e-6 and high <= 1e-6)

  def _source_box(
    self, height: int, width: int
  ) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) where the map is a crop of whole pixels."""
    # Neither rotated nor sheared, upright, and mirrored at most left to right.
    (x, skew, dx), (tilt, y, dy) = self.matrix.tolist()
    if skew or tilt or not x or y <= 0:
      return None
    # sorted, as a mirrored map has its right edge first.
    left, right = sorted([-dx / x, (self.width - dx) / x])
    edges = np.array([-dy / y, left, (self.height - dy) / y, right])
    whole = np.round(edges).astype(int)
    # What the division rounded away is far below this.
    if np.abs(edges - whole).max() > 1e-6:
      return None
    top, left, bottom, right = whole.tolist()
    inside = 0 <= top < bottom <= height and 0 <= left < right <= width
    return (top, left, bottom, right) if inside else None
