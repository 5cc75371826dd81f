"""A small folder of images and masks: bright discs on noise, of many sizes."""

import json
import pathlib

import cv2
import numpy as np
from PIL import Image

from mobilevit_jax.tasks import segment


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """An image, uint8 [h, w, 3], and its mask, uint8 [h, w]."""
  rng = np.random.default_rng(seed)
  height, width = rng.integers(40, 72, 2).tolist()
  image = rng.integers(0, 80, (height, width, 3)).astype(np.uint8)
  mask = np.zeros((height, width), np.uint8)
  for _ in range(2):
    centre = rng.integers(10, (width - 10, height - 10)).tolist()
    radius = int(rng.integers(6, 14))
    cv2.circle(mask, centre, radius, 1, -1)
    cv2.circle(mask, centre, radius, 255, 1)
  image[mask == 1] += np.array([150, 120, 20], np.uint8)
  return image, mask


def write(root: pathlib.Path, *, train: int = 12, val: int = 5) -> None:
  """`images`, palette PNGs in `masks`, and `classes.json`."""
  (root / "classes.json").write_text(json.dumps(["background", "disc"]))
  for split, count, first in (("train", train, 0), ("val", val, 100)):
    for folder in ("images", "masks"):
      (root / folder / split).mkdir(parents=True)
    for index in range(count):
      image, mask = draw(first + index)
      path = root / "images" / split / f"{index:02}.png"
      Image.fromarray(image).save(path)
      picture = Image.fromarray(mask)
      picture.putpalette(np.array(segment.palette(), np.uint8).tobytes())
      picture.save(root / "masks" / split / f"{index:02}.png")
