"""Context scores against the block in NumPy: where v2's softmax looks."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax import visualize
from mobilevit_jax.models import mobilevit_v2
from tests import separable

# Stage 3's map is 13 x 6, made 14 x 6; stage 4's 7 x 3; stage 5's 4 x 2.
_SIZE = 104, 48


@pytest.fixture(scope="module")
def model():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mobilevit_v2, "DEPTHS", (2, 1, 1))  # compiles faster
    family = models.FAMILIES["mobilevitv2"]
    patch.setitem(family.variants, "narrow", mobilevit_v2.Variant(0.125))
    net = models.abstract_model("narrow", num_classes=2)
  return random_weights.randomize(net)


def test_scores_are_those_of_the_paper_and_lie_at_their_pixels(model):
  image = np.random.default_rng(0).random((*_SIZE, 3), np.float32)
  found = visualize.context_scores(model, image)
  stages = visualize.feature_maps(model, image)
  assert list(found) == ["stage3", "stage4", "stage5"]
  grids = (14, 6), (8, 4), (4, 2)
  for (stage, seen), grid in zip(found.items(), grids, strict=True):
    before = f"stage{int(stage[-1]) - 1}"
    down, block = getattr(model.backbone, stage)
    x = np.asarray(down(jnp.asarray(stages[before])[None]))
    output, scores = separable.block(block, x)
    # It is the same net: what it answers is the block's output too.
    np.testing.assert_allclose(stages[stage], output[0], rtol=1e-3, atol=1e-4)
    assert seen.grid == grid == output.shape[1:3]
    assert seen.scores.dtype == np.float32
    np.testing.assert_allclose(seen.scores, scores[0], rtol=1e-4, atol=1e-6)
    # Far from an even share, or any other order would do.
    assert scores.max() > 1.3 / scores.shape[-1]
    maps = seen.maps()
    assert maps.shape == (len(block.global_rep), *grid)
    for place in range(4):
      shown = maps[:, place // 2 :: 2, place % 2 :: 2]
      flat = shown.reshape(len(maps), -1)
      np.testing.assert_allclose(flat, scores[0, :, place], atol=1e-6)


def test_another_kind_of_net_and_several_images_are_refused(model):
  image = np.zeros((*_SIZE, 3), np.float32)
  with pytest.raises(ValueError, match="those of separable attention"):
    visualize.attention_maps(model, image)
  with pytest.raises(ValueError, match=r"image must be \[h, w, 3\]"):
    visualize.context_scores(model, image[None])
