"""Pixels, masks and boxes that go through one matrix stay together."""

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.data.transforms import geometry


def _noise(height, width):
  rng = np.random.default_rng(0)
  return rng.integers(256, size=(height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(50, 70), (1, 300), (300, 1), (1, 1)])
def test_crop_is_the_resized_box(shape, flip):
  image = _noise(*shape)
  for number in range(10):
    rng = augment.example_rng(3, 0, number)
    top, left, h, w = box = augment.crop_box(*shape, rng)
    expected = cv2.resize(image[top : top + h, left : left + w], (32, 24))
    move = geometry.Affine.crop(box, 24, 32, flip=flip)
    np.testing.assert_array_equal(
      move.pixels(image), expected[:, ::-1] if flip else expected, strict=True
    )


# Boxes of whole pixels that are enlarged by whole numbers: their edges stay
# where pixels meet, so what is drawn must be found to the pixel.
@given(
  st.integers(1, 4),
  st.booleans(),
  st.tuples(*[st.integers(0, 12)] * 4),
  st.tuples(st.integers(0, 4), st.integers(0, 6)),
)
def test_a_drawn_box_moves_with_its_pixels(scale, flip, corners, origin):
  x0, x1 = sorted(corners[:2])
  y0, y1 = sorted(corners[2:])
  box = np.array([[x0, y0, x1 + 1, y1 + 1]])
  mask = np.zeros((16, 20), np.uint8)
  mask[y0 : y1 + 1, x0 : x1 + 1] = 1
  top, left = origin
  height, width = 16 - top, 20 - left
  move = geometry.Affine.crop(
    (top, left, height, width), scale * height, scale * width, flip=flip
  )
  moved = move.mask(mask, fill=255)
  ((left, top, right, bottom),) = np.round(move.boxes(box)).astype(int)
  found = np.zeros_like(moved)
  found[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
  np.testing.assert_array_equal(moved, found)
  grey = move.pixels(np.repeat(mask[..., None] * 255, 3, axis=2))
  # Bilinear edges are soft: where all neighbours agree, it is the mask.
  assert moved[grey[..., 0] == 255].all()
  assert not moved[grey[..., 0] == 0].any()


def test_a_turn_goes_the_general_way():
  # A quarter turn: x' = 20 - y, y' = x, so that it can be checked exactly.
  image = _noise(20, 30)
  turn = geometry.Affine(np.array([[0.0, -1, 20], [1, 0, 0]]), 30, 20)
  np.testing.assert_array_equal(turn.pixels(image), np.rot90(image, -1))
  mask = image[..., 0]
  np.testing.assert_array_equal(turn.mask(mask, 255), np.rot90(mask, -1))
  moved = turn.boxes(np.array([[3.0, 5, 10, 8]]))
  np.testing.assert_array_equal(moved, [[12, 3, 15, 10]])
  # What comes from outside of the image is the fill.
  away = geometry.Affine(np.array([[1.0, 0, 50], [0, 1, 0]]), 20, 30)
  assert (away.mask(mask, 255) == 255).all()


def test_flip_mirrors_by_its_probability_and_always_draws():
  image = _noise(4, 5)
  example = examples.Example(image, {"label": 1}, 0, "noise")
  whole = {"crop_scale": (1, 1), "crop_ratio": (0.01, 100)}
  rng = np.random.default_rng(0)
  transform = classify.ClassifyTransform(flip=0.3, **whole)
  plain = classify.ClassifyTransform(flip=0, **whole)
  shown = plain.train(example, 8, np.random.default_rng(0))["images"]
  flipped = [
    not np.array_equal(transform.train(example, 8, rng)["images"], shown)
    for _ in range(2000)
  ]
  # Three standard deviations are 0.03; crops vary, so only the whole counts.
  assert np.mean(flipped) > 0
  after = []
  for p in (0, 0.5, 1):
    rng = np.random.default_rng(0)
    classify.ClassifyTransform(flip=p).train(example, 8, rng)
    after.append(rng.random())
  assert len(set(after)) == 1
