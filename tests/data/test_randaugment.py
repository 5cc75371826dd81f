import numpy as np
import pytest

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data import randaugment
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.data.transforms import geometry


def _photograph(seed=0):
  """Smooth, and with the darkest and the lightest value in each channel."""
  import cv2

  rng = np.random.default_rng(seed)
  coarse = rng.integers(256, size=(6, 6, 3)).astype(np.uint8)
  image = cv2.resize(coarse, (40, 40)).astype(np.float64)
  low, high = image.min((0, 1)), image.max((0, 1))
  return np.round((image - low) / (high - low) * 255).astype(np.uint8)


def _apply(name, image, amount, sign=1):
  from PIL import Image

  operation = randaugment.OPERATIONS[name]
  return np.asarray(operation(Image.fromarray(image), amount, sign))


def _change(a, b):
  return np.mean(np.abs(a.astype(float) - b.astype(float)))


def test_there_are_the_papers_fourteen_operations():
  assert len(randaugment.OPERATIONS) == 14


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_strength_grows_from_nothing(name):
  image = _photograph()
  changes = [_change(_apply(name, image, x), image) for x in (0, 0.5, 1)]
  if name == "equalize":  # of one strength
    assert changes[0] == changes[1] == changes[2] > 1
    return
  assert changes[0] == 0
  if name in ("identity", "autocontrast"):  # the image has full contrast
    assert changes[2] == 0
  else:
    assert 0 < changes[1] < changes[2]


def test_autocontrast_spreads_what_is_flat():
  flat = (_photograph() // 4 + 90).astype(np.uint8)
  spread = _apply("autocontrast", flat, 0.5)
  assert flat.min() >= 90 and spread.min() == 0 and spread.max() >= 254


def test_moves_are_about_the_centre_and_by_what_they_say():
  image = _photograph()
  # 0.3 of 40 pixels is 12; the sign says where to.
  right = _apply("translate_x", image, 1, -1)
  np.testing.assert_array_equal(right[:, 12:], image[:, :-12])
  assert (right[:, :11] == 128).all()
  up = _apply("translate_y", image, 1, 1)
  np.testing.assert_array_equal(up[:-12], image[12:])
  # About the centre, a turn one way is the mirror image of one the other way.
  for name in ("rotate", "shear_x", "shear_y"):
    mirrored = _apply(name, image[:, ::-1], 1, -1)[:, ::-1]
    assert _change(mirrored, _apply(name, image, 1, 1)) < 0.1


def test_solarize_and_posterize_by_hand():
  image = _photograph()
  inverted = np.where(image < 128, image, 255 - image)
  np.testing.assert_array_equal(_apply("solarize", image, 0.5), inverted)
  np.testing.assert_array_equal(_apply("posterize", image, 1), image & 0xF0)


def test_rand_augment_is_its_generators_and_uses_every_operation():
  image = _photograph()
  many = [
    randaugment.rand_augment(image, np.random.default_rng(seed), num_ops=1)
    for seed in range(200)
  ]
  again = randaugment.rand_augment(image, np.random.default_rng(7), num_ops=1)
  np.testing.assert_array_equal(many[7], again)
  expected = {
    _apply(name, image, 0.9, sign).tobytes()
    for name in randaugment.OPERATIONS
    for sign in (1, -1)
  }
  assert {result.tobytes() for result in many} == expected


def test_color_jitter_keeps_within_its_strength():
  image = _photograph()
  rng = np.random.default_rng(0)
  np.testing.assert_array_equal(randaugment.color_jitter(image, rng, 0), image)
  grey = np.full((4, 4, 3), 100, np.uint8)  # which brightness alone changes
  levels = [
    randaugment.color_jitter(grey, rng, 0.4)[0, 0, 0] for _ in range(99)
  ]
  assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_erase_takes_a_box_as_often_as_it_says(p):
  image = np.zeros((50, 60, 3), np.uint8)
  rng = np.random.default_rng(0)
  erased = [augment.random_erase(image, rng, p) for _ in range(200)]
  assert not image.any()
  boxes = [e.any(axis=-1) for e in erased if e.any()]
  assert abs(len(boxes) / len(erased) - p) < 0.1
  for box in boxes:
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
    area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert 0.015 < area / box.size < 0.42
    # Noise is seldom black in all three channels: the box is full.
    assert box.sum() > 0.98 * area


def _augmented(image, size, rng, **fields):
  example = examples.Example(image, {"label": 0}, 0, "image")
  return classify.ClassifyTransform(**fields).train(example, size, rng)[
    "images"
  ]


def test_what_is_off_draws_nothing():
  image = _photograph()
  rngs = [np.random.default_rng(3) for _ in range(2)]
  plain = _augmented(image, 24, rngs[0])
  box = augment.crop_box(*image.shape[:2], rngs[1])
  flip = rngs[1].random() < 0.5
  crop = geometry.Affine.crop(box, 24, 24, flip=flip).pixels(image)
  np.testing.assert_array_equal(plain, crop)
  assert rngs[0].random() == rngs[1].random()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"randaugment_ops": -1}, "randaugment_ops=-1 must be at least 0"),
    ({"randaugment_magnitude": 11.0}, r"randaugment_magnitude=11.0 must lie"),
    ({"color_jitter": 1.5}, r"color_jitter=1.5 must lie in \[0, 1\]"),
    ({"erase": 2.0}, r"erase=2.0 must lie in \[0, 1\]"),
  ],
)
def test_bad_strengths_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    classify.ClassifyTransform(**fields)


def test_every_switch_changes_the_image():
  image = _photograph()

  def augmented(**fields):
    fields = {"crop_scale": (1, 1), "flip": 0, **fields}
    return _augmented(image, 40, np.random.default_rng(1), **fields)

  plain = augmented()
  for field in (
    {"randaugment_ops": 3},
    {"color_jitter": 0.4},
    {"erase": 1.0},
  ):
    assert _change(augmented(**field), plain) > 1, field
