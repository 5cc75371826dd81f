import io
import struct
import time

import cv2
import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data import headers

ORIENTATION = 0x0112  # the EXIF tag


def _picture(height=24, width=40):
  """Smooth, so that JPEG keeps it, and without any symmetry."""
  y, x = np.mgrid[0:height, 0:width]
  colours = (x * 200 / width, y * 250 / height, 255 - x * y % 97)
  return np.stack(colours, -1).astype(np.uint8)


def _encode(image, file_format, **options):
  buffer = io.BytesIO()
  image.save(buffer, file_format, **options)
  return buffer.getvalue()


def _with_alpha():
  alpha = np.linspace(0, 255, 24 * 40).reshape(24, 40, 1)
  return Image.fromarray(np.dstack([_picture(), alpha]).astype(np.uint8))


def _cmyk():
  black = np.linspace(0, 200, 24 * 40).reshape(24, 40, 1)
  pixels = np.dstack([_picture(), black]).astype(np.uint8)
  return Image.fromarray(pixels, "CMYK")


def _without_adobe_marker(jpeg):
  begin = jpeg.index(b"\xff\xee")
  length = int.from_bytes(jpeg[begin + 2 : begin + 4], "big")
  assert b"Adobe" in jpeg[begin : begin + 2 + length]
  return jpeg[:begin] + jpeg[begin + 2 + length :]


PICTURE = Image.fromarray(_picture())
# Encoded images by kind; Pillow, an independent decoder, says what they show.
FILES = {
  "rgb_jpeg": _encode(PICTURE, "JPEG", quality=95),
  "progressive_jpeg": _encode(PICTURE, "JPEG", progressive=True),
  "grey_jpeg": _encode(PICTURE.convert("L"), "JPEG"),
  "rgb_png": _encode(PICTURE, "PNG"),
  "grey_png": _encode(PICTURE.convert("L"), "PNG"),
  "grey_alpha_png": _encode(_with_alpha().convert("LA"), "PNG"),
  "palette_png": _encode(PICTURE.convert("P"), "PNG"),
  "bilevel_png": _encode(PICTURE.convert("1"), "PNG"),
  "rgba_png": _encode(_with_alpha(), "PNG"),
  "one_row_jpeg": _encode(PICTURE.crop((0, 0, 40, 1)), "JPEG"),
  "one_pixel_png": _encode(PICTURE.crop((7, 7, 8, 8)), "PNG"),
  # Adobe's programs store CMYK inverted, and all others had to follow.
  "cmyk_jpeg": _encode(_cmyk(), "JPEG", quality=95),
  "unmarked_cmyk_jpeg": _without_adobe_marker(
    _encode(_cmyk(), "JPEG", quality=95)
  ),
}


@pytest.mark.parametrize("kind", FILES)
def test_decode_equals_pillow(kind):
  pixels = augment.decode(FILES[kind], kind)
  expected = np.asarray(Image.open(io.BytesIO(FILES[kind])).convert("RGB"))
  assert pixels.dtype == np.uint8
  # Both stand on libjpeg-turbo; CMYK is turned to RGB by each on its own.
  np.testing.assert_allclose(
    pixels.astype(int), expected.astype(int), atol=2 if "cmyk" in kind else 1
  )


def test_decode_is_rgb():
  red = Image.new("RGB", (3, 2), (250, 10, 30))
  pixels = augment.decode(_encode(red, "PNG"), "red")
  np.testing.assert_array_equal(pixels, np.full((2, 3, 3), (250, 10, 30)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_applies_exif_rotation(orientation):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  data = _encode(PICTURE, "JPEG", quality=95, exif=exif)
  expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
  pixels = augment.decode(data, "rotated")
  assert pixels.shape == ((40, 24, 3) if orientation > 4 else (24, 40, 3))
  np.testing.assert_allclose(
    pixels.astype(int), np.asarray(expected).astype(int), atol=1
  )


@pytest.mark.parametrize("channels", [1, 3])
def test_decode_keeps_the_high_byte_of_16_bits(channels):
  rng = np.random.default_rng(0)
  deep = rng.integers(2**16, size=(9, 7, channels)).astype(np.uint16)
  data = cv2.imencode(".png", deep)[1].tobytes()
  expected = np.broadcast_to(deep[..., ::-1] >> 8, (9, 7, 3))
  np.testing.assert_array_equal(augment.decode(data, "deep"), expected)


@pytest.mark.parametrize("kind", ["rgb_jpeg", "progressive_jpeg", "rgb_png"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_truncated_image_is_named(kind, part):
  data = FILES[kind]
  with pytest.raises(examples.ImageError, match=r"^train/7\.jpg: .*truncated"):
    augment.decode(data[: int(part * len(data))], "train/7.jpg")


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", r"^set#3: the image is empty"),
    (b"GIF89a or so it says", r"^set#3: cannot be decoded \(20 bytes"),
    (bytes(1000), r"^set#3: cannot be decoded \(1000 bytes"),
  ],
)
def test_what_is_no_image_is_named(data, message):
  with pytest.raises(examples.ImageError, match=message):
    augment.decode(data, "set#3")


def test_header_of_a_giant_image_is_named():
  data = bytearray(_encode(PICTURE, "PNG"))
  data[16:24] = (2**30).to_bytes(4, "big") * 2  # IHDR's width and height
  with pytest.raises(
    examples.ImageError, match=r"^set#3: it has 1073741824 x 1073741824 pixels"
  ):
    augment.decode(bytes(data), "set#3")


@pytest.mark.parametrize("kind", ["progressive_jpeg", "palette_png", "webp"])
def test_limit_of_pixels(kind):
  data = _encode(PICTURE, "WEBP") if kind == "webp" else FILES[kind]
  assert augment.decode(data, kind, max_pixels=24 * 40).shape == (24, 40, 3)
  with pytest.raises(examples.ImageError) as refused:
    augment.decode(data, "set#3", max_pixels=24 * 40 - 1)
  assert str(refused.value) == (
    "set#3: it has 40 x 24 pixels, more than the 959 that are decoded "
    "(config.transform.max_pixels)"
  )


def test_size_is_that_of_a_jpeg_and_not_of_its_thumbnail():
  # EXIF holds another JPEG, before the frame of this one.
  exif = Image.Exif()
  exif[0x9286] = _encode(PICTURE.resize((7, 5)), "JPEG")
  data = _encode(PICTURE, "JPEG", exif=exif)
  assert data.count(b"\xff\xd8\xff") == 2
  assert headers.size(data) == (24, 40)
  assert not headers.damage(data)


def test_part_of_a_png_that_claims_gigabytes_takes_no_memory():
  data = FILES["rgb_png"]
  false = data[:33] + struct.pack(">I4s", 2**31 - 5, b"tEXt") + data[33:100]
  begin = time.perf_counter()
  with pytest.raises(examples.ImageError, match=r"^set#3: .* it is truncated"):
    augment.decode(false, "set#3")
  assert time.perf_counter() - begin < 0.5


@pytest.mark.parametrize("kind", FILES)
def test_sound_images_are_not_called_damaged(kind):
  assert not headers.damage(FILES[kind])
  assert not headers.damage(FILES[kind] + b"more, as cameras add")


def _jpeg(**options):
  """Large enough that its data can be cut in the midst."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
  return _encode(Image.fromarray(pixels), "JPEG", quality=90, **options)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("rest", ["noise", "zeros", "text", "nothing"])
def test_cut_jpeg_that_goes_on_with_something_else_is_damaged(options, rest):
  data = _jpeg(**options)
  noise = np.random.default_rng(1).integers(0, 256, 4000, np.uint8).tobytes()
  more = {"noise": noise, "zeros": bytes(4000), "text": b"text " * 800}
  cut = data[: int(0.6 * len(data))] + more.get(rest, b"")
  assert headers.damage(cut)


def test_restarts_of_a_jpeg_are_no_damage():
  data = cv2.imencode(
    ".jpg",
    np.asarray(PICTURE),
    [cv2.IMWRITE_JPEG_RST_INTERVAL, 1],
  )[1].tobytes()
  assert b"\xff\xd1" in data
  assert not headers.damage(data)


def test_spoilt_png_is_damaged():
  data = bytearray(FILES["rgb_png"])
  data[len(data) // 2] ^= 1
  assert "another checksum" in headers.damage(bytes(data))


def test_decode_takes_pixels():
  pixels = _picture(5, 6)
  np.testing.assert_array_equal(augment.decode(pixels, "rgb"), pixels)
  for grey in (pixels[..., 0], pixels[..., :1]):
    decoded = augment.decode(grey, "grey")
    assert decoded.shape == (5, 6, 3)
    assert (decoded == pixels[..., :1]).all()


@pytest.mark.parametrize(
  "pixels",
  [
    np.zeros((4, 4, 3), np.float32),
    np.zeros((4, 4, 2), np.uint8),
    np.zeros((4, 0, 3), np.uint8),
    np.zeros((1, 4, 4, 3), np.uint8),
    np.zeros(4, np.uint8),
  ],
)
def test_impossible_pixels_are_named(pixels):
  with pytest.raises(examples.ImageError, match=r"^set#3: pixels of type"):
    augment.decode(pixels, "set#3")
