"""Reads every image of a source once and notes what tells images apart."""

from __future__ import annotations

from concurrent import futures
import dataclasses
import hashlib
import os

import cv2
import numpy as np
import tqdm

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples

# What is kept of an image: 45 bytes, so a million images are 45 MB. Hashes of
# 64 bits make a chance match among them as likely as 1 in 40 million.
_RECORD = np.dtype(
  [
    ("label", np.int32),  # -1 where it can't be known
    ("usable", np.bool_),
    ("height", np.int32),
    ("width", np.int32),
    ("grey", np.bool_),
    ("contents", np.uint64),  # hash of the encoded file
    ("pixels", np.uint64),  # hash of the decoded pixels and their shape
    ("look", np.uint64),  # equal for images that look alike; 0: can't be told
  ]
)
_CHUNK = 32  # images to a task
# The difference hash needs an image with something in it: flat areas have no
# slope, so pictures of a plain background would all look alike.
_LEAST_SIDE = 32
_LEAST_BITS = 10


@dataclasses.dataclass(frozen=True)
class Scan:
  """What was found in a source.

  Attributes:
    source: that was read.
    records: an array of one record an image, in order.
    errors: what is wrong, by number, with images that can't be decoded.
    unreadable: the same of images whose storage failed.
  """

  source: examples.Source
  records: np.ndarray
  errors: dict[int, str]
  unreadable: dict[int, str]


def scan(source: examples.Source, *, progress: bool = False) -> Scan:
  """Reads and decodes every image once, on all cores.

  Memory holds the images being decoded, one a thread, and 45 bytes for each
  that is done.

  Args:
    source: the images.
    progress: whether to show a bar on standard error, if that is a terminal.

  Returns:
    What was found.
  """
  records = np.zeros(len(source), _RECORD)
  found = Scan(source, records, {}, {})

  def read(begin: int) -> int:
    end = min(begin + _CHUNK, len(source))
    for index in range(begin, end):
      records[index] = _record(found, index)
    return end - begin

  starts = range(0, len(source), _CHUNK)
  bar = tqdm.tqdm(
    desc=f"checking {source.name}",
    total=len(source),
    unit=" images",
    mininterval=1,
    disable=None if progress else True,
  )
  pool = futures.ThreadPoolExecutor(os.cpu_count())
  try:
    with bar:
      for count in pool.map(read, starts):
        bar.update(count)
  finally:  # Ctrl-C need not wait for the rest
    pool.shutdown(cancel_futures=True)
  return found


def _record(found: Scan, index: int) -> tuple[int | np.uint64 | bool, ...]:
  """One image's record; errors go to `found`."""
  label = -1
  contents = np.uint64(0)
  try:
    example = found.source[index]
    label = example.target["label"]
    if isinstance(example.image, bytes):
      contents = _hash(example.image)
    pixels = augment.decode(example.image, example.name)
  except examples.StorageError as error:
    found.unreadable[index] = str(error)
    return label, False, 0, 0, False, contents, 0, 0
  except examples.ImageError as error:
    found.errors[index] = str(error)
    return label, False, 0, 0, False, contents, 0, 0
  height, width = pixels.shape[:2]
  red, green, blue = (pixels[..., channel] for channel in range(3))
  grey = np.array_equal(red, green) and np.array_equal(green, blue)
  seen = _hash(np.ascontiguousarray(pixels).data, b"%d x %d" % (height, width))
  if not contents:  # pixels that never were a file
    contents = seen
  return label, True, height, width, grey, contents, seen, _look(pixels)


def _hash(*parts: bytes | memoryview) -> np.uint64:
  digest = hashlib.blake2b(digest_size=8)
  for part in parts:
    digest.update(part)
  return np.uint64(int.from_bytes(digest.digest(), "little"))


def _look(pixels: np.ndarray) -> np.uint64:
  """The 64-bit difference hash: where a 9 x 8 copy gets brighter rightwards.

  It survives another size, quality or tone. 0 for images too small or too
  plain for it to mean much.
  """
  if min(pixels.shape[:2]) < _LEAST_SIDE:
    return np.uint64(0)
  small = cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA)
  grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
  bits = grey[:, 1:] > grey[:, :-1]
  if not _LEAST_BITS <= bits.sum() <= bits.size - _LEAST_BITS:
    return np.uint64(0)
  return np.packbits(bits).view(np.uint64)[0]
