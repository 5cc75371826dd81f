import math

import cv2
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mobilevit_jax.data import augment


def _noise(height, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(256, size=(height, width, 3)).astype(np.uint8)


@settings(deadline=None, max_examples=50)
@given(
  seed=st.integers(0, 2**128 - 1),
  epoch=st.integers(0, 1000),
  example_id=st.integers(0, 2**31),
)
def test_randomness_depends_on_seed_epoch_and_example(seed, epoch, example_id):
  def draws(*key):
    return augment.example_rng(*key).random(8).tolist()

  same = draws(seed, epoch, example_id)
  assert draws(seed, epoch, example_id) == same
  # Streams that overlap would share draws, only in other places.
  for other in (
    draws(seed ^ 1, epoch, example_id),
    draws(seed, epoch + 1, example_id),
    draws(seed, epoch, example_id + 1),
    draws(seed, example_id, epoch) if epoch != example_id else [],
  ):
    assert not set(same) & set(other)


def _centred(height, width, ratio):
  """The largest centred box with a ratio in range."""
  aspect = min(max(width / height, ratio[0]), ratio[1])
  h = min(height, max(1, round(width / aspect)))
  w = min(width, max(1, round(height * aspect)))
  return (height - h) // 2, (width - w) // 2, h, w


@settings(deadline=None)
@given(
  height=st.integers(1, 700),
  width=st.integers(1, 700),
  seed=st.integers(0, 1000),
  scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
  ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
)
def test_crop_box_is_inside_and_in_range(height, width, seed, scale, ratio):
  box = augment.crop_box(
    height, width, np.random.default_rng(seed), scale=scale, ratio=ratio
  )
  top, left, h, w = box
  assert top >= 0 and left >= 0 and h >= 1 and w >= 1
  assert top + h <= height and left + w <= width
  # Sides are rounded to pixels: within half a pixel, they are in range.
  area = height * width
  in_range = (
    (w - 0.5) * (h - 0.5) <= scale[1] * area * (1 + 1e-9)
    and (w + 0.5) * (h + 0.5) >= scale[0] * area * (1 - 1e-9)
    and (w - 0.5) / (h + 0.5) <= ratio[1] * (1 + 1e-9)
    and (w + 0.5) / (h - 0.5) >= ratio[0] * (1 - 1e-9)
  )
  assert in_range or box == _centred(height, width, ratio)


def test_crop_boxes_go_everywhere():
  rng = np.random.default_rng(0)
  boxes = np.array([augment.crop_box(90, 120, rng) for _ in range(3000)])
  top, left, h, w = np.hsplit(boxes, 4)
  area = h * w / (90 * 120)
  assert area.min() < 0.09 and area.max() > 0.95
  assert (w / h).min() < 0.77 and (w / h).max() > 1.31
  assert 0 in top and 0 in left
  assert (top + h).max() == 90 and (left + w).max() == 120


class _CountedRng(np.random.Generator):
  """Counts the tries: each draws an area and a ratio."""

  def __init__(self):
    super().__init__(np.random.PCG64(0))
    self.tries = 0.0

  def uniform(self, *args, **kwargs):
    self.tries += 0.5
    return super().uniform(*args, **kwargs)


@pytest.mark.parametrize(
  ("shape", "scale", "ratio", "expected"),
  [
    ((1, 1000), (0.08, 1), (3 / 4, 4 / 3), (0, 499, 1, 1)),
    ((1000, 1), (0.08, 1), (3 / 4, 4 / 3), (499, 0, 1, 1)),
    ((30, 1000), (0.08, 1), (3 / 4, 4 / 3), (0, 480, 30, 40)),
    ((1000, 30), (0.08, 1), (3 / 4, 4 / 3), (480, 0, 40, 30)),
    ((100, 100), (1, 1), (2, 2), (25, 0, 50, 100)),
    ((100, 90), (1, 1), (1, 2), (5, 0, 90, 90)),
  ],
)
def test_crop_box_falls_back_to_the_centre(shape, scale, ratio, expected):
  rng = _CountedRng()
  height, width = shape
  box = augment.crop_box(height, width, rng, scale=scale, ratio=ratio)
  assert box == expected
  assert rng.tries == 10


@pytest.mark.parametrize(
  ("size", "shorter"), [(256, 288), (224, 252), (160, 180), (320, 360)]
)
@pytest.mark.parametrize(
  "shape", [(300, 400), (401, 299), (200, 200), (40, 311), (1, 8)]
)
def test_eval_crop_equals_plain_opencv(size, shorter, shape):
  image = _noise(*shape)
  height, width = shape
  scale = shorter / min(shape)
  # The longer side loses its part of a pixel.
  target = [
    shorter if side == min(shape) else math.floor(side * scale)
    for side in (width, height)
  ]
  resized = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
  top = (resized.shape[0] - size) // 2
  left = (resized.shape[1] - size) // 2
  expected = resized[top : top + size, left : left + size]
  actual = augment.resize_and_center_crop(image, size)
  np.testing.assert_array_equal(actual, expected, strict=True)


def test_eval_crop_of_the_right_size_is_a_slice():
  image = _noise(288, 320)
  np.testing.assert_array_equal(
    augment.resize_and_center_crop(image, 256), image[16:272, 32:288]
  )
  np.testing.assert_array_equal(
    augment.resize_and_center_crop(image, 288, resize_size=288),
    image[:, 16:304],
  )


def test_eval_crop_of_a_line_stays_small():
  # Resized as it is, this line would take 288 x 86,400,000 pixels.
  line = _noise(1, 300_000)
  middle = line[:, 150_000 - 4 : 150_000 + 4]
  np.testing.assert_array_equal(
    augment.resize_and_center_crop(line, 256),
    augment.resize_and_center_crop(middle, 256),
  )
  column = line.transpose(1, 0, 2)
  assert augment.resize_and_center_crop(column, 256).shape == (256, 256, 3)


def test_eval_resize_below_the_crop_is_refused():
  with pytest.raises(ValueError, match="resize_size=200 must be at least"):
    augment.resize_and_center_crop(_noise(9, 9), 224, resize_size=200)
