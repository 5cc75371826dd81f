"""Logits of fixed weights, kept in `golden.json`, catch a drift of the nets.

Of the paper's: the later families are held by timm's and by a NumPy reference.
"""

import json

import numpy as np
import pytest

from mobilevit_jax.models import mobilevit
from tests import golden


@pytest.mark.parametrize("size", golden.SIZES, ids=str)
@pytest.mark.parametrize("name", mobilevit.VARIANTS)
def test_logits(name, size):
  stored = json.loads(golden.FILE.read_text())[name]
  expected = np.array(stored[f"{size[0]}x{size[1]}"])
  found = golden.logits_of(golden.model_of(name), size)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  # The two images, and the classes, differ by far more than the tolerance.
  assert np.abs(expected[0] - expected[1]).max() > 0.02
  assert np.ptp(expected, axis=1).min() > 0.2


def test_the_file_holds_nothing_else():
  stored = json.loads(golden.FILE.read_text())
  assert list(stored) == list(mobilevit.VARIANTS)
  assert all(len(logits) == len(golden.SIZES) for logits in stored.values())


def test_channel_order_is_seen():
  # A drift in the order of the channels must show in these logits.
  model = golden.model_of("mobilevit_xxs")
  right = golden.logits_of(model, (64, 64))
  kernel = model.backbone.stem.conv.kernel
  kernel[...] = kernel[...][:, :, ::-1]
  assert np.abs(golden.logits_of(model, (64, 64)) - right).max() > 0.01
