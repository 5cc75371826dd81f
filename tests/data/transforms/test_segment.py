"""Image and mask stay together; crops, padding, protocols, distortion."""

import io

import numpy as np
from PIL import Image
import pytest

from mobilevit_jax.data import examples
from mobilevit_jax.data.transforms import segment

MAIN = {
  "short_side": (0.5, 1.5),
  "long_side": 2.0,
  "pad": True,
  "most_of_one": 0.75,
  "blur": 0.0,
  "rotation": 10.0,
}


def example(height=60, width=80, seed=0):
  """A picture whose red tells the class of each pixel: 40 times it."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 5, (3, 4))
  rows, columns = np.arange(height) * 3 // height, np.arange(width) * 4 // width
  mask = coarse[rows][:, columns].astype(np.uint8)
  image = np.stack([40 * mask, 255 - 40 * mask, np.full_like(mask, 90)], -1)
  return examples.Example(image, {"mask": mask}, 0, "drawn")


@pytest.mark.parametrize("fields", ({}, MAIN), ids=("paper", "main"))
def test_the_mask_moves_with_its_image(fields):
  transform = segment.SegmentTransform(**fields)
  seen = set()
  for seed in range(20):
    rng = np.random.default_rng(seed)
    arrays = transform.train(example(seed=seed), 48, rng)
    for name, (shape, dtype) in transform.spec(48, train=True).items():
      assert (arrays[name].shape, arrays[name].dtype) == (shape, dtype)
    image, mask = arrays["images"].astype(int), arrays["masks"]
    valid = mask != 255
    seen |= set(np.unique(mask).tolist())
    close = np.abs(image[..., 0] - 40 * mask) <= 4
    # All but the pixels at the borders of classes, which blend.
    assert close[valid].mean() > 0.8
    if not fields:
      assert valid.all()  # nothing is padded
  assert {0, 1, 2, 3, 4} <= seen
  assert (255 in seen) == bool(fields)


def test_padding_is_black_ignored_and_right_and_below():
  transform = segment.SegmentTransform(
    short_side=(0.5, 0.5), pad=True, flip=1.0
  )
  whole = example(40, 40)
  arrays = transform.train(whole, 40, np.random.default_rng(0))
  mask, image = arrays["masks"], arrays["images"]
  assert (mask[:20, :20] != 255).all()
  assert (mask[20:] == 255).all() and (mask[:, 20:] == 255).all()
  assert not image[21:].any() and not image[:, 21:].any()
  flipped = whole.target["mask"][:, ::-1][1::2, 1::2]
  assert (mask[:20, :20] == flipped).mean() > 0.9


def test_short_side_and_long_side():
  transform = segment.SegmentTransform()
  rng = np.random.default_rng(0)
  sides = [transform._scale(60, 80, 48, rng) * 60 for _ in range(300)]
  # 0.5 to 2 of the crop, but never below the crop itself.
  assert 48 <= min(sides) < 50 and 90 < max(sides) <= 96.5
  limited = segment.SegmentTransform(long_side=1.5, pad=True)
  longest = [limited._scale(60, 80, 48, rng) * 80 for _ in range(300)]
  assert max(longest) == pytest.approx(72)


def test_a_crop_of_one_class_is_tried_again():
  mask = np.zeros((60, 60), np.uint8)
  mask[:, 50:] = 1
  whole = examples.Example(
    np.zeros((60, 60, 3), np.uint8), {"mask": mask}, 0, "edge"
  )
  counts = {}
  for most in (1.0, 0.75):
    transform = segment.SegmentTransform(
      short_side=(2.5, 2.5), most_of_one=most, flip=0.0
    )
    found = [
      transform.train(whole, 24, np.random.default_rng(seed))["masks"]
      for seed in range(60)
    ]
    counts[most] = sum(0.25 <= np.mean(m == 1) <= 0.75 for m in found)
  assert counts[0.75] > 1.5 * counts[1.0] > 0


def test_options_that_are_off_draw_nothing():
  plain = segment.SegmentTransform().train(
    example(), 48, np.random.default_rng(3)
  )
  off = segment.SegmentTransform(blur=0.0, photometric=False).train(
    example(), 48, np.random.default_rng(3)
  )
  np.testing.assert_array_equal(plain["images"], off["images"])
  for more in ({"blur": 1.0}, {"photometric": True}):
    other = segment.SegmentTransform(**more).train(
      example(), 48, np.random.default_rng(3)
    )
    np.testing.assert_array_equal(plain["masks"], other["masks"])
    assert (plain["images"] != other["images"]).any()


def test_stretch_and_aspect():
  stretch = segment.SegmentTransform()
  assert stretch.spec(32, train=False) == {"images": ((32, 32, 3), np.uint8)}
  assert stretch.evaluate(example(), 32)["images"].shape == (32, 32, 3)
  aspect = segment.SegmentTransform(protocol="aspect", multiple=16)
  for (h, w), shape in (
    ((60, 80), (48, 64)),
    ((80, 60), (64, 48)),
    ((60, 100), (48, 80)),
    ((50, 50), (48, 48)),
    ((333, 500), (48, 64)),  # 72 is floored
  ):
    whole = example(h, w)
    assert aspect.shape(whole, 48) == shape
    encoded = io.BytesIO()
    Image.fromarray(whole.image).save(encoded, "PNG")
    still = examples.Example(encoded.getvalue(), {}, 0, "encoded")
    assert aspect.shape(still, 48) == shape
    image = aspect.evaluate(whole, shape)["images"]
    assert image.shape == (*shape, 3)
    # The picture's corners stay its corners.
    for row, column in ((0, 0), (-1, -1), (0, -1)):
      assert image[row, column].tolist() == whole.image[row, column].tolist()


def test_a_turned_photograph_has_the_turned_shape():
  encoded, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = 6  # a quarter turn
  Image.new("RGB", (80, 60)).save(encoded, "JPEG", exif=exif)
  turned = examples.Example(encoded.getvalue(), {}, 0, "turned")
  transform = segment.SegmentTransform(protocol="aspect")
  assert transform.shape(turned, 48) == (64, 48)
  assert transform.decode(turned).image.shape[:2] == (80, 60)
  with pytest.raises(examples.ImageError, match="broken"):
    transform.shape(examples.Example(b"x", {}, 0, "broken"), 48)


def test_aligned_resize():
  line = np.tile(np.arange(0, 250, 10, np.uint8)[:, None, None], (1, 3, 3))
  found = segment.resize_aligned(line, 49, 3)
  np.testing.assert_array_equal(found[:, 0, 0], np.arange(0, 241, 5))
  assert segment.resize_aligned(line, 25, 3) is not line


def test_mask_of_another_size_is_refused_by_name():
  whole = example()
  wrong = examples.Example(whole.image, {"mask": np.zeros((4, 5))}, 0, "a.jpg")
  with pytest.raises(
    examples.ImageError, match=r"a\.jpg: its mask has 4 x 5 pixels.* 60 x 80"
  ):
    segment.SegmentTransform().decode(wrong)


def test_distortion_stays_near_and_changes():
  image = example().image
  rng = np.random.default_rng(0)
  seen = [segment.distort(image, rng) for _ in range(30)]
  assert all(x.dtype == np.uint8 and x.shape == image.shape for x in seen)
  assert len({x.tobytes() for x in seen}) > 25
  # Of six things each is off half the time: some stay as they were.
  means = np.array([x.mean() for x in seen])
  assert np.abs(means - image.mean()).max() < 60


@pytest.mark.parametrize(
  ("fields", "message"),
  (
    ({"short_side": (2.0, 1.0)}, "short_side"),
    ({"flip": 1.5}, r"flip=1\.5"),
    ({"protocol": "x"}, "protocol='x'"),
    ({"most_of_one": 0.0}, "most_of_one"),
    ({"multiple": 0}, "multiple=0"),
    ({"long_side": 0.0}, "long_side"),
  ),
)
def test_refuses(fields, message):
  with pytest.raises(ValueError, match=message):
    segment.SegmentTransform(**fields)
