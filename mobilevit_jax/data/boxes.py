"""Boxes in images, as sources give them, and what can be wrong with them.

Boxes are x0, y0, x1, y1 in pixels of the image, 0 at its left and upper edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import io
import pathlib
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from mobilevit_jax.data import examples

_ORIENTATION = 0x0112  # EXIF's; from 5 on the sides change places
FAULTS = (
  *("not a number", "with swapped corners", "without area"),
  *("outside of the image", "of an unknown class"),
)


@dataclasses.dataclass(frozen=True)
class Boxes:
  """What is in one image.

  Attributes:
    boxes: float64 `[n, 4]`, in pixels.
    classes: int32 `[n]`, from 0; -1 for a class that the set has not.
    crowd: bool `[n]`: to be left out of training, and neither counted nor held
      against the net in evaluation; COCO's crowds, VOC's difficult objects.
    area: float64 `[n]`, in pixels, by which COCO tells small from large.
  """

  boxes: np.ndarray
  classes: np.ndarray
  crowd: np.ndarray
  area: np.ndarray

  def target(self) -> dict[str, np.ndarray]:
    """As an example's target."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def make_boxes(
  rows: Sequence[Sequence[float]], areas: Sequence[float] | None = None
) -> Boxes:
  """Of rows of x0, y0, x1, y1, class and crowd; areas are the boxes' own."""
  # Six columns, so that an image without boxes has the right shape, [0, 6].
  table = np.array(rows, np.float64).reshape(-1, 6)
  boxes = table[:, :4]
  area = (
    np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) if areas is None else areas
  )
  return Boxes(
    boxes,
    table[:, 4].astype(np.int32),
    table[:, 5] > 0,
    np.asarray(area, np.float64),
  )


@runtime_checkable
class Boxed(examples.Source, Protocol):
  """A source of images with boxes."""

  category_ids: tuple[int, ...]  # of the classes, in COCO's files

  def truth(self, index: int) -> Boxes:
    """What is in an image, without reading it where that can be avoided."""
    ...

  def image_id(self, index: int) -> int | str:
    """What COCO's files call the image."""
    ...


def upright_size(image: pathlib.Path | bytes, name: str) -> tuple[int, int]:
  """Height and width of an encoded image as `augment.decode` gives it.

  Of its header alone: decoding turns what a camera took sideways.

  Raises:
    examples.ImageError: if it is none.
  """
  try:
    file = io.BytesIO(image) if isinstance(image, bytes) else image
    with Image.open(file) as header:
      width, height = header.size
      # EXIF's orientations 5 to 8 are turned by 90 degrees: height and width
      # change places.
      turned = header.getexif().get(_ORIENTATION, 1) > 4
  except OSError as error:
    raise examples.ImageError(f"{name}: cannot be decoded: {error}") from error
  return (width, height) if turned else (height, width)


def wrong(
  truth: Mapping[str, np.ndarray] | Boxes, height: int, width: int
) -> dict[str, np.ndarray]:
  """Which boxes can't be learnt from as they are, by what is wrong with them.

  Args:
    truth: of an image.
    height: of the image, in pixels.
    width: of the image, in pixels.

  Returns:
    For each fault a mask `[n]`.
  """
  target = truth.target() if isinstance(truth, Boxes) else truth
  boxes = target["boxes"]
  x0, y0, x1, y1 = (boxes[:, edge] for edge in range(4))
  # A box has one fault at most, the first that is found.
  sound = np.asarray(np.isfinite(boxes).all(axis=1))
  swapped = sound & ((x1 < x0) | (y1 < y0))
  flat = sound & ~swapped & ((x1 == x0) | (y1 == y0))
  # Formats that count from 0 and from 1 disagree by a pixel.
  outside = (x0 < -1) | (y0 < -1) | (x1 > width + 1) | (y1 > height + 1)
  masks = (
    ~sound,
    swapped,
    flat,
    sound & ~swapped & ~flat & outside,
    target["classes"] < 0,
  )
  return dict(zip(FAULTS, masks, strict=True))
