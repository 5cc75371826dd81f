"""COCO's instances as masks of Pascal VOC's 21 classes.

Source: ml-cvnets main, `data/datasets/segmentation/coco_segmentation.py`: other
things are background, and where instances overlap the earlier one wins.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data.sources import masks

# COCO's categories, in the order of VOC's classes from 1 on.
_CATEGORIES = (
  *(5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72),
)


def fill_polygon(corners: np.ndarray, height: int, width: int) -> np.ndarray:
  """Pixels whose centre is inside a polygon, bool `[height, width]`.

  By the even-odd rule: a centre is inside if a ray to its left crosses the
  outline an odd number of times.

  Args:
    corners: `[n, 2]` of x and y in pixels, from the upper left corner.
    height: of the result.
    width: of the result.
  """
  # Edges from each corner to the next, the last one back to the first.
  x, y = corners[:, 0], corners[:, 1]
  x2, y2 = np.roll(x, -1), np.roll(y, -1)
  # Rows of pixel centres, [height, 1], against all edges, [n]. Half open, so
  # that a corner between two edges counts once.
  rows = np.arange(height)[:, None] + 0.5
  row, edge = np.nonzero((y <= rows) != (y2 <= rows))
  # Where each of these edges crosses its row.
  share = (row + 0.5 - y[edge]) / (y2[edge] - y[edge])
  places = x[edge] + share * (x2[edge] - x[edge])
  # The first pixel whose centre lies right of the crossing.
  first = np.clip(np.ceil(places - 0.5), 0, width).astype(int)
  crossed = np.zeros((height, width + 1), int)
  np.add.at(crossed, (row, first), 1)
  # An odd number of crossings to the left: inside.
  return np.cumsum(crossed, axis=1)[:, :width] % 2 == 1


def read_runs(counts: list[int] | str, height: int, width: int) -> np.ndarray:
  """A run-length code, bool `[height, width]`.

  Runs of 0 and 1 in turn go down the columns. A string holds them as COCO's
  tools compress them: five bits a letter from "0" on, the sixth for more to
  follow, and from the fourth run on the difference to the run before the last.

  Raises:
    ValueError: if the runs aren't those of so many pixels.
  """
  if isinstance(counts, str):
    # Five bits a letter, the lowest first; bit 32 says that more follow, and
    # bit 16 of the last one is the sign.
    runs, value, shift = [], 0, 0
    for letter in counts.encode():
      bits = letter - 48
      value |= (bits & 31) << shift
      shift += 5
      if not bits & 32:
        if bits & 16:
          # Differences to the run of the same kind before: runs of similar
          # length make small numbers.
          value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
  else:
    runs = counts
  if sum(runs) != height * width or min(runs, default=0) < 0:
    raise ValueError(
      f"runs of {sum(runs)} pixels for an image of {height} x {width}"
    )
  # Column by column, as MATLAB has it: hence the transposed shape.
  flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
  return flat.reshape(width, height).T


class CocoMasks(masks.MaskSource):
  """Images of a COCO file, and masks drawn of their instances."""

  def __init__(
    self,
    name: str,
    pairs: list[tuple[str, str]],
    images: list[dict[str, Any]],
    instances: dict[int, list[dict[str, Any]]],
  ):
    super().__init__(name, pairs, masks.VOC_CLASSES)
    self._images, self._instances = images, instances

  def mask(self, index: int) -> np.ndarray:
    """The truth of an image, uint8 `[h, w]`, crowds included."""
    image = self._images[index]
    height, width = image["height"], image["width"]
    mask = np.zeros((height, width), np.uint8)
    # Instances come in the file's order, and earlier ones stay on top.
    for instance in self._instances.get(image["id"], ()):
      if instance["category_id"] not in _CATEGORIES:
        continue
      try:
        inside = _draw(instance["segmentation"], height, width)
      except (ValueError, TypeError, KeyError, IndexError) as error:
        raise examples.ImageError(
          f"{self.place(index)[0]}: its instance {instance.get('id')} can't be "
          f"drawn: {error}"
        ) from error
      label = 1 + _CATEGORIES.index(instance["category_id"])
      # Only where nothing was drawn yet.
      mask[inside & (mask == 0)] = label
    return mask


def _draw(segmentation: Any, height: int, width: int) -> np.ndarray:
  """The pixels of one instance: polygons, or the runs of a crowd."""
  if isinstance(segmentation, dict):
    size = tuple(segmentation["size"])
    if size != (height, width):
      raise ValueError(f"runs of size {size} for {(height, width)}")
    return read_runs(segmentation["counts"], height, width)
  inside = np.zeros((height, width), bool)
  for polygon in segmentation:
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    inside |= fill_polygon(corners, height, width)
  return inside


def open_split(
  data_dir: str | os.PathLike[str] | None, split: str
) -> CocoMasks:
  """COCO as it is unpacked, such as `train2017`, with VOC's 21 classes.

  Args:
    data_dir: with `annotations/instances_SPLIT.json` and the images in `SPLIT`
      or `images/SPLIT`.
    split: see above.

  Returns:
    The images that have an instance of one of the classes.

  Raises:
    ValueError: if a file is missing.
  """
  root = masks.root_of(data_dir)
  file = root / "annotations" / f"instances_{split}.json"
  if not file.is_file():
    raise ValueError(f"split={split!r} needs {file}")
  content = json.loads(file.read_text(encoding="utf-8"))
  instances: dict[int, list[dict[str, Any]]] = {}
  for instance in content["annotations"]:
    instances.setdefault(instance["image_id"], []).append(instance)
  folder = root / split
  folder = folder if folder.is_dir() else root / "images" / split
  images = [
    image
    for image in sorted(content["images"], key=lambda image: image["id"])
    if any(
      instance["category_id"] in _CATEGORIES
      for instance in instances.get(image["id"], ())
    )
  ]
  names = [image["file_name"] for image in images]
  if missing := [n for n in names if not (folder / n).is_file()]:
    raise ValueError(
      f"{file} names {len(missing)} images that are not in {folder}, as "
      f"{missing[0]}"
    )
  if not images:
    raise ValueError(f"{file} has no instance of Pascal VOC's classes")
  pairs = [(str(pathlib.Path(folder, name)), "") for name in names]
  return CocoMasks(f"coco_voc21/{split}", pairs, images, instances)
