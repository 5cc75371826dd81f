"""Suppression against torchvision's `batched_nms`."""

import jax
import numpy as np
import pytest

from mobilevit_jax.tasks import ssd

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_torchvision(seed):
  torch = pytest.importorskip("torch")
  torchvision = pytest.importorskip("torchvision")
  rng = np.random.default_rng(seed)
  low = rng.random((1, 500, 2)) * 0.6
  size = rng.uniform(0.05, 0.4, low.shape)
  boxes = np.concatenate([low, low + size], -1).astype(np.float32)
  scores = rng.random((1, 500, 7)).astype(np.float32)
  found = jax.jit(ssd.detect, static_argnames=("per_class", "most"))(
    boxes, scores, threshold=0.0, per_class=500, most=200
  )
  kept = torchvision.ops.batched_nms(
    torch.from_numpy(np.repeat(boxes[0], 7, axis=0)),
    torch.from_numpy(scores[0].reshape(-1)),
    torch.arange(7).repeat(500),
    0.5,
  ).numpy()[:200]
  np.testing.assert_array_equal(found.scores[0], scores[0].reshape(-1)[kept])
  np.testing.assert_array_equal(found.classes[0], kept % 7)
  np.testing.assert_array_equal(found.boxes[0], boxes[0, kept // 7].clip(0, 1))
