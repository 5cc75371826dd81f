"""Reads every image of a source once and notes what tells images apart."""

from __future__ import annotations

from concurrent import futures
import dataclasses
import hashlib
import os
import threading

import cv2
import numpy as np
import tqdm

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data import headers

# What is kept of an image: 46 bytes, so a million images are 46 MB. Hashes of
# 64 bits make a chance match among them as likely as 1 in 40 million.
_RECORD = np.dtype(
  [
    ("label", np.int32),  # -1 where it can't be known
    ("usable", np.bool_),
    ("damaged", np.bool_),  # though it may be decoded
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
    classes: by number, the values in the mask of an image that has one.
  """

  source: examples.Source
  records: np.ndarray
  errors: dict[int, str]
  unreadable: dict[int, str]
  classes: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)


def scan(
  source: examples.Source,
  *,
  progress: bool = False,
  max_pixels: int = augment.MAX_PIXELS,
) -> Scan:
  """Reads and decodes every image once, on all cores.

  Memory holds the images being decoded, one a thread, and 46 bytes for each
  that is done.

  Args:
    source: the images.
    progress: whether to show a bar on standard error, if that is a terminal.
    max_pixels: the most that an image may have to be decoded.

  Returns:
    What was found.
  """
  found = Scan(source, np.zeros(len(source), _RECORD), {}, {})
  # Threads check it before each image, so that Ctrl-C ends them soon.
  stopped = threading.Event()

  def read(begin: int) -> int:
    end = min(begin + _CHUNK, len(source))
    for index in range(begin, end):
      if not stopped.is_set():
        _note(found, index, max_pixels)
    return end - begin

  starts = range(0, len(source), _CHUNK)
  bar = tqdm.tqdm(
    desc=f"checking {source.name}",
    total=len(source),
    unit=" images",
    mininterval=1,
    disable=None if progress else True,
  )
  # Threads, not processes: OpenCV lets go of the interpreter lock.
  pool = futures.ThreadPoolExecutor(os.cpu_count())
  try:
    with bar:
      for count in pool.map(read, starts):
        bar.update(count)
  finally:  # Ctrl-C need not wait for the rest, nor for a large image
    stopped.set()
    pool.shutdown(wait=False, cancel_futures=True)
  return found


def _note(found: Scan, index: int, max_pixels: int) -> None:
  """Fills in one image's record, or says in `found` what is wrong with it."""
  record = found.records[index]
  record["label"] = -1
  try:
    # The label is noted first: an image that is broken still has one.
    example = found.source[index]
    record["label"] = example.target.get("label", -1)
    if isinstance(example.image, bytes):
      # Decoders pass over damage, so the bytes themselves are looked at.
      record["contents"] = _hash(example.image)
      record["damaged"] = bool(headers.damage(example.image))
    pixels = augment.decode(example.image, example.name, max_pixels)
    mask = example.target.get("mask")
    if mask is not None:
      found.classes[index] = _classes(mask, pixels, example.name)
  except examples.ImageError as error:
    storage = isinstance(error, examples.StorageError)
    (found.unreadable if storage else found.errors)[index] = str(error)
    return
  record["usable"] = True
  record["height"], record["width"] = shape = pixels.shape[:2]
  # Grey images are often stored as RGB: the channels are then equal.
  red, green, blue = np.moveaxis(pixels, -1, 0)
  record["grey"] = np.array_equal(red, green) and np.array_equal(green, blue)
  pixels = np.ascontiguousarray(pixels)
  record["pixels"] = _hash(pixels.data, b"%d x %d" % shape)
  if not record["contents"]:  # pixels that never were a file
    record["contents"] = record["pixels"]
  record["look"] = _look(pixels)


def _classes(mask: np.ndarray, pixels: np.ndarray, name: str) -> np.ndarray:
  """The classes in a mask, which must be of its image's size."""
  if mask.shape != pixels.shape[:2]:
    raise examples.ImageError(
      f"{name}: its mask has {mask.shape[0]} x {mask.shape[1]} pixels, the "
      f"image {pixels.shape[0]} x {pixels.shape[1]}"
    )
  return np.unique(mask)


def _hash(data: bytes | memoryview, shape: bytes = b"") -> int:
  # BLAKE2b is faster than SHA-1, and gives 8 bytes as they are. The shape goes
  # into the key, as 2 x 8 and 4 x 4 pixels may have the same bytes.
  digest = hashlib.blake2b(data, digest_size=8, person=shape).digest()
  return int.from_bytes(digest, "little")


def _look(pixels: np.ndarray) -> int:
  """The 64-bit difference hash: where a 9 x 8 copy gets brighter rightwards.

  It survives another size, quality or tone. 0 for images too small or too
  plain for it to mean much.
  """
  if min(pixels.shape[:2]) < _LEAST_SIDE:
    return 0
  # INTER_AREA averages, so that noise and quality have little effect.
  small = cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA)
  grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
  # 64 bits: whether each of 8 x 8 pixels is brighter than its left neighbour.
  bits = grey[:, 1:] > grey[:, :-1]
  if not _LEAST_BITS <= bits.sum() <= bits.size - _LEAST_BITS:
    return 0
  return int(np.packbits(bits).view(np.uint64)[0])
