import jax
import numpy as np
import pytest

from mobilevit_jax import evaluate
from mobilevit_jax import models
from mobilevit_jax import steps
from mobilevit_jax.data import sources
from mobilevit_jax.run import sharding
from tests import tiny


class Seven:
  """Seven images of four classes."""

  name = "seven"
  num_classes = 4
  class_names = ("a", "b", "c", "d")

  def __init__(self):
    rng = np.random.default_rng(0)
    self.images = rng.integers(0, 256, (7, 16, 16, 3), np.uint8)
    self.labels = rng.integers(0, 4, 7)

  def __len__(self):
    return 7

  def __getitem__(self, index):
    image, label = self.images[index], int(self.labels[index])
    return sources.Example(image, label, index, f"seven#{index}")


@pytest.mark.parametrize(("devices", "batch"), [(4, 4), (4, 2), (1, 3), (8, 7)])
def test_every_image_counts_once(devices, batch):
  source = Seven()
  model = tiny.abstract_net()
  evaluator = evaluate.Evaluator(
    source,
    model=model,
    layout=sharding.Layout(jax.devices()[:devices]),
    size=16,
    batch=batch,
    resize_size=16,
  )
  weights = {
    name: steps.split(models.initialize(model, seed))[1:]
    for name, seed in (("ema", 0), ("raw", 1))
  }
  metrics = evaluator(weights)
  assert metrics["images"] == 7
  assert evaluator.batch % devices == 0
  for name, seed in (("ema", 0), ("raw", 1)):
    net = models.initialize(model, seed)
    logits = np.asarray(net(source.images.astype(np.float32) / 255))
    shifted = logits.astype(np.float64)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    loss = -log_p[np.arange(7), source.labels].mean()
    top1 = (logits.argmax(-1) == source.labels).mean()
    np.testing.assert_allclose(metrics[f"{name}_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics[f"{name}_top1"], top1, rtol=1e-12)
    assert metrics[f"{name}_top5"] == 1
