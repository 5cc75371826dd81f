"""Attention maps against numpy, and back to the block's output."""

import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import visualize


def _layer_norm(x, norm):
  x = x - x.mean(-1, keepdims=True)
  x /= np.sqrt(np.square(x).mean(-1, keepdims=True) + norm.epsilon)
  return x * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def _dense(x, linear):
  return x @ np.asarray(linear.kernel[...]) + np.asarray(linear.bias[...])


def _silu(x):
  return x / (1 + np.exp(-x))


def _places(x):
  """The four sub-images of same-place pixels, each as one sequence."""
  return [
    x[row::2, column::2].reshape(-1, x.shape[-1])
    for row in (0, 1)
    for column in (0, 1)
  ]


def _numpy_weights(x, attention):
  """Attention weights [k, n, n] of the sequence [n, d], head by head."""
  d, k = x.shape[-1], attention.heads
  qkv = _dense(x, attention.qkv)
  weights = []
  for head in range(k):
    mine = slice(head * d // k, (head + 1) * d // k)
    scores = qkv[:, :d][:, mine] @ qkv[:, d : 2 * d][:, mine].T / (d / k) ** 0.5
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    weights.append(scores / scores.sum(-1, keepdims=True))
  return np.stack(weights)


def test_attention_covers_every_block_layer_place_and_head(maps):
  shapes = {stage: found.weights.shape for stage, found in maps.items()}
  assert shapes == {
    "stage3": (2, 4, 4, 112, 112),
    "stage4": (4, 4, 4, 28, 28),
    "stage5": (3, 4, 4, 8, 8),  # of a map of 7 x 4, made 8 x 4
  }
  assert [found.grid for found in maps.values()] == [(28, 16), (14, 8), (8, 4)]
  for found in maps.values():
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-6)
    assert found.weights.min() >= 0
    # Sharper than an even share, or the tests below would show little.
    assert found.weights.max() > 2 / found.weights.shape[-1]


@pytest.mark.parametrize("stage", ["stage3", "stage4"])
def test_attention_equals_numpy_and_gives_the_blocks_output(
  model, maps, features, stage
):
  before = {"stage3": "stage2", "stage4": "stage3"}[stage]
  down, block = getattr(model.backbone, stage)
  x = down(jnp.asarray(features[before])[None])
  y = np.asarray(block.expand(block.local_rep(x)))[0]
  h, w, d = y.shape
  folded = np.zeros_like(y)
  for place, tokens in enumerate(_places(y)):
    for number, layer in enumerate(block.global_rep):
      normed = _layer_norm(tokens, layer.attention_norm)
      recorded = maps[stage].weights[number, place]
      expected = _numpy_weights(normed, layer.attention)
      np.testing.assert_allclose(recorded, expected, atol=1e-5)
      # On with what was recorded: it is what the block itself used.
      value = _dense(normed, layer.attention.qkv)[:, 2 * d :]
      heads = np.split(value, layer.attention.heads, axis=1)
      mixed = [m @ v for m, v in zip(recorded, heads, strict=True)]
      tokens += _dense(np.concatenate(mixed, 1), layer.attention.out)
      hidden = _silu(_dense(_layer_norm(tokens, layer.ffn_norm), layer.ffn_in))
      tokens += _dense(hidden, layer.ffn_out)
    tokens = _layer_norm(tokens, block.norm)
    shape = h // 2, w // 2, d
    folded[place // 2 :: 2, place % 2 :: 2] = tokens.reshape(shape)
  seen = block.project(jnp.asarray(folded)[None])
  fused = block.fusion(jnp.concatenate([x, seen], axis=-1))
  np.testing.assert_allclose(features[stage], fused[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  ("row", "column", "place", "patch"),
  [
    # Stage 3's map is 28 x 16, a pixel of it 8 x 8 of the image.
    (0, 0, (0, 0), (0, 0)),
    (7, 8, (0, 1), (0, 0)),
    (41, 23, (1, 0), (2, 1)),
    (223, 127, (1, 1), (13, 7)),
  ],
)
def test_pixel_looks_at_pixels_of_its_own_place(
  maps, row, column, place, patch
):
  found = maps["stage3"]
  looks = found.of_pixel(row, column)
  assert looks.shape == (2, 4, 28, 16)
  np.testing.assert_allclose(looks.sum(axis=(2, 3)), 1, atol=1e-6)
  sequence, query = 2 * place[0] + place[1], 8 * patch[0] + patch[1]
  expected = found.weights[:, sequence, :, query].reshape(2, 4, 14, 8)
  same_place = np.zeros((28, 16), bool)
  same_place[place[0] :: 2, place[1] :: 2] = True
  np.testing.assert_array_equal(
    looks[..., same_place].reshape(2, 4, 14, 8), expected
  )
  assert not looks[..., ~same_place].any()


def test_odd_map_is_seen_on_the_even_one_that_it_becomes(maps):
  # The image's last row is the eighth of the map that was unfolded.
  looks = maps["stage5"].of_pixel(223, 0)
  assert looks.shape == (3, 4, 8, 4)
  np.testing.assert_allclose(looks[..., 1::2, ::2].sum((2, 3)), 1, atol=1e-6)
  np.testing.assert_array_equal(
    looks[..., 1::2, ::2].reshape(3, 4, 8), maps["stage5"].weights[:, 2, :, 6]
  )


def test_pixel_outside_of_the_image_is_one_clear_line(maps):
  for pixel in ((224, 0), (0, 128), (-1, 0), (0, -1)):
    with pytest.raises(ValueError) as caught:
      maps["stage3"].of_pixel(*pixel)
    assert str(caught.value) == (
      f"pixel {pixel} lies outside of the image of 224 x 128 pixels"
    )


def test_several_images_are_one_clear_line(model, image):
  with pytest.raises(ValueError) as caught:
    visualize.attention_maps(model, image[None])
  assert str(caught.value) == "image must be [h, w, 3], not (1, 224, 128, 3)"
