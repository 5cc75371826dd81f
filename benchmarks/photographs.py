"""JPEGs to measure with where there are no photographs at hand."""

import pathlib

import cv2
import numpy as np

HEIGHT, WIDTH = 375, 500  # the commonest size of ImageNet's photographs
_QUALITY = 95


def write(folder: pathlib.Path, count: int) -> None:
  """Writes so many JPEGs in two class folders.

  They are noise whose strength falls with its frequency, as in photographs,
  and have about the bytes of ImageNet's, 110 kB.

  Args:
    folder: gets `train/a` and `train/b`.
    count: of files.
  """
  for number in range(count):
    path = folder / "train" / "ab"[number % 2] / f"{number:05}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, data = cv2.imencode(".jpg", _photograph(number), options)
    path.write_bytes(data.tobytes())


def _photograph(seed: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  total = np.zeros((HEIGHT, WIDTH, 3), np.float32)
  # Octaves of noise: each has twice the frequency and 0.74 of the strength,
  # about photographs' falling spectrum.
  for octave in range(1, 9):
    shape = (HEIGHT * 2**octave // 256, WIDTH * 2**octave // 256, 3)
    noise = rng.standard_normal(np.maximum(shape, 2), np.float32)
    smooth = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    total += smooth * np.float32(48 * 0.74**octave)
  return np.clip(total + 128, 0, 255).astype(np.uint8)
