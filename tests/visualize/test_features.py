"""Features and receptive fields: their values."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import visualize
from mobilevit_jax.visualize.features import as_floats


def test_bytes_become_shares_of_one(model, image, features):
  pixels = np.arange(256, dtype=np.uint8)
  np.testing.assert_allclose(as_floats(pixels), np.arange(256) / 255)
  np.testing.assert_array_equal(as_floats(image), image)
  shapes = {stage: output.shape for stage, output in features.items()}
  assert shapes == {
    "stage1": (112, 64, 4),
    "stage2": (56, 32, 4),
    "stage3": (28, 16, 4),
    "stage4": (14, 8, 4),
    "stage5": (7, 4, 4),
  }


def test_field_of_one_convolution_is_its_kernel():
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 5))

  def forward(x):
    return lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  images = jax.random.normal(jax.random.key(1), (2, 9, 9, 2))
  field = np.asarray(visualize.centre_gradient(forward, images))
  expected = np.zeros((9, 9))
  expected[3:6, 3:6] = np.abs(np.sum(kernel, axis=3)).sum(axis=2)
  np.testing.assert_allclose(field, expected, rtol=1e-5)


def test_field_is_the_mean_over_images_of_absolute_gradients():
  images = jnp.stack([jnp.full((3, 3, 1), 2.0), jnp.full((3, 3, 1), -4.0)])
  field = np.asarray(visualize.centre_gradient(jnp.square, images))
  expected = np.zeros((3, 3))
  expected[1, 1] = (4 + 8) / 2
  np.testing.assert_allclose(field, expected)


# The stem and six depthwise or 3x3 convolutions to stage 3, by their strides:
# 1 + 2 * (1 + 2 + 2 + 4 + 4 + 4 + 8 + 8) pixels.
_STAGE3_FIELD = 67


def test_attention_makes_a_block_see_the_whole_image(model):
  images = np.random.default_rng(1).random((1, 128, 96, 3), np.float32)
  full = visualize.effective_receptive_field(model, images, "stage3")
  assert full.shape == (128, 96)
  assert np.all(full > 0)
  alone = visualize.effective_receptive_field(
    model, images, "stage3", attention=False
  )
  rows, columns = np.any(alone > 0, axis=1), np.any(alone > 0, axis=0)
  assert rows.sum() == columns.sum() == _STAGE3_FIELD
  assert np.all(alone[np.ix_(rows, columns)] > 0)
  # In one piece around the centre.
  assert np.flatnonzero(rows).tolist() == list(range(31, 98))


def test_model_is_left_as_it_is(model, image, maps, features):
  del maps  # recorded by now
  assert visualize.without_attention(model) is not model
  assert len(model.backbone.stage3[1].global_rep) == 2
  again = visualize.feature_maps(model, image)
  np.testing.assert_array_equal(again["stage5"], features["stage5"])


def test_contributing_area_counts_the_largest_pixels():
  field = np.array([[0, 4], [1, 5]])
  areas = [visualize.contributing_area(field, s) for s in (0.5, 0.9, 0.95, 1)]
  assert areas == [0.25, 0.5, 0.75, 0.75]


def test_errors_are_one_clear_line(model, image):
  def field(images, **kwargs):
    visualize.effective_receptive_field(model, images, **kwargs)

  wrong = [
    (lambda: field(image[None], stage="stage6"), "stage='stage6' must be one"),
    (lambda: field(image), "images must be [b, h, w, 3], not (224, 128, 3)"),
    (
      lambda: field(image[None, :16]),
      "images of 16 x 128 pixels are too small",
    ),
    (lambda: visualize.feature_maps(model, image[..., :1]), "[b, h, w, 3]"),
    (lambda: visualize.contributing_area(image, 0), "share=0 must be above 0"),
  ]
  for call, message in wrong:
    with pytest.raises(ValueError) as caught:
      call()
    assert message in str(caught.value) and "\n" not in str(caught.value)
