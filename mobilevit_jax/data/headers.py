"""What an encoded image says of itself, before it is decoded.

Decoders take the memory that a header asks for, and pass over damage without a
word: both are looked at here, in the bytes.
"""

from __future__ import annotations

import io
import re
import struct
import zlib

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# ITU-T T.81, table B.1: frames (without DHT, JPG and DAC among them), and what
# may follow a scan's data: tables, another scan, comments, applications' data.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEGMENTS = {0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_RESTARTS = range(0xD0, 0xD8)
_END, _SCAN = 0xD9, 0xDA
# In a scan's data a zero follows each byte of ones, but for markers.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")


def size(image: bytes) -> tuple[int, int] | None:
  """Height and width, as they are stored; None where it can't be told."""
  if image.startswith(_PNG):
    # IHDR has to be the first chunk.
    # Bytes 16 to 23, after the signature, the chunk's length and its name.
    # Padding with zeros keeps a file of ten bytes from raising.
    width, height = struct.unpack_from(">II", image.ljust(24, b"\0"), 16)
    return (height, width) if height and width else None
  if image.startswith(_JPEG):
    return _jpeg_size(image)
  try:
    with Image.open(io.BytesIO(image)) as header:
      return header.height, header.width
  except Image.DecompressionBombError:
    # Pillow refuses sizes that are above its limit; any number above ours will
    # do.
    return 2**31, 2**31
  # Pillow's readers raise errors of many types at what is no image.
  except Exception:
    return None


def _jpeg_size(image: bytes) -> tuple[int, int] | None:
  # Segments follow each other until the scan: a marker, two bytes of length,
  # content.
  place = 2
  while found := _MARKER.search(image, place):
    code, place = found[1][0], found.end()
    if code in _FRAMES and place + 7 <= len(image):
      # A frame: length (2 bytes), precision (1), height (2), width (2).
      height, width = struct.unpack_from(">HH", image, place + 3)
      return (height, width) if height and width else None
    if code in (_END, _SCAN):
      return None
    # Restart markers stand alone, without a length.
    if code not in _RESTARTS:
      place += int.from_bytes(image[place : place + 2], "big")
  return None


def is_cut(image: bytes) -> bool:
  """Whether it is a PNG of which a part says that it is longer than the file.

  OpenCV takes the memory for such a part: gigabytes for a hundred bytes.
  """
  place = len(_PNG)
  while image.startswith(_PNG) and place + 8 <= len(image):
    length, kind = struct.unpack_from(">I4s", image, place)
    if kind == b"IEND":
      return False
    # Each chunk: length (4), name (4), content, checksum (4).
    place += 12 + length
    if place > len(image):
      return True
  return False


def damage(image: bytes) -> str:
  """What a decoder passes over: damage to data that still gives pixels.

  A JPEG that is cut and goes on with something else decodes to grey, or to
  noise, below the cut. It shows where the data holds what no JPEG has: other
  markers than those that may follow a scan, or no end. What looks like JPEG's
  data, such as the end of another file, does not show.

  Returns:
    The damage, in words; empty if there is none to be seen.
  """
  if image.startswith(_PNG):
    return _png_damage(image)
  return _jpeg_damage(image) if image.startswith(_JPEG) else ""


def _png_damage(image: bytes) -> str:
  place = len(_PNG)
  while place + 12 <= len(image):
    length, kind = struct.unpack_from(">I4s", image, place)
    # A chunk's checksum covers its name and its content.
    body = image[place + 4 : place + 8 + length]
    if (
      zlib.crc32(body).to_bytes(4, "big")
      != image[place + 8 + length : place + 12 + length]
    ):
      return f"its part {kind.decode('latin-1')!r} has another checksum"
    if kind == b"IEND":
      return ""
    place += 12 + length
  return "it has no end"


def _jpeg_damage(image: bytes) -> str:
  # Markers from the start of the file on, the scan's data in between.
  place, restarts = 2, False
  while True:
    found = _MARKER.match(image, place)
    if found is None:
      return "something else follows its data" if place < len(image) else _CUT
    code, place = found[1][0], found.end()
    if code == _END:
      return ""
    if code not in _SEGMENTS | _FRAMES:
      return "its data goes on with something else"
    length = int.from_bytes(image[place : place + 2], "big")
    if code == 0xDD:  # how many blocks lie between two restarts
      # 0 means that there are no restarts.
      restarts = any(image[place + 2 : place + 4])
    place += length
    if code != _SCAN:
      continue
    # In a scan's data, restart markers are part of the data where they were
    # announced. Anything else ends it.
    while found := _MARKER.search(image, place):
      if not (restarts and found[1][0] in _RESTARTS):
        break
      place = found.end()
    if found is None:
      return _CUT
    place = found.start()


_CUT = "its data has no end"
