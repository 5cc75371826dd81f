"""A segmenter's pictures: overlay, mask as indices, shares as JSON."""

import json

import numpy as np
from PIL import Image
import pytest

from mobilevit_jax import create_model
from mobilevit_jax import predict
from mobilevit_jax.weights import save_weights

pytestmark = pytest.mark.slow


def test_overlay_mask_and_shares(tmp_path, capsys):
  net = create_model("mobilevit_xxs", "deeplabv3", num_classes=3, seed=1)
  weights = tmp_path / "w.safetensors"
  save_weights(net, weights, labels=["ground", "cat", "dog"])
  pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3))
  image = tmp_path / "photo.png"
  Image.fromarray(pixels.astype(np.uint8)).save(image)
  code = predict.main(
    [
      f"--weights={weights}",
      "--size=64",
      "--json",
      f"--draw={tmp_path / 'seen'}",
      str(image),
    ]
  )
  assert code == 0
  found = json.loads(capsys.readouterr().out)
  top = found["top"]
  assert sum(entry["share"] for entry in top) == pytest.approx(1)
  assert {entry["label"] for entry in top} <= {"ground", "cat", "dog"}
  with Image.open(tmp_path / "seen/photo.png.mask.png") as mask:
    assert (mask.mode, mask.size) == ("P", (70, 50))
    classes = np.asarray(mask)
  assert set(np.unique(classes)) == {entry["class"] for entry in top}
  with Image.open(tmp_path / "seen/photo.png.png") as overlay:
    assert overlay.width == 70 and overlay.height > 50
    seen = np.asarray(overlay)[:50]
  background = classes == 0
  np.testing.assert_array_equal(seen[background], pixels[background])
