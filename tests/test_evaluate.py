import jax
import numpy as np
import pytest

from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax.data.sources import digits
from mobilevit_jax.data.transforms import classify as classify_transform
from mobilevit_jax.run import sharding
from mobilevit_jax.tasks import classify
from tests import tiny

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 7)


def _evaluator(devices=1, batch=3):
  return evaluate.Evaluator(
    experiment.Evaluation(
      task=classify.Classify(),
      transform=classify_transform.ClassifyTransform(resize_size=16),
      source=digits.ArraySource("seven", IMAGES, LABELS, tuple("abcd")),
      model=tiny.abstract_net(),
      layout=sharding.Layout(jax.devices()[:devices]),
      size=16,
      batch=batch,
    )
  )


@pytest.mark.parametrize(("devices", "batch"), [(4, 4), (4, 2), (1, 3), (8, 7)])
def test_every_image_counts_once(devices, batch):
  evaluator = _evaluator(devices, batch)
  nets = {"ema": tiny.net(seed=0), "raw": tiny.net(seed=1)}
  metrics = evaluator({k: steps.split(net)[1:] for k, net in nets.items()})
  assert metrics["images"] == 7
  assert evaluator.batch % devices == 0
  for name, net in nets.items():
    logits = np.asarray(net(IMAGES.astype(np.float32) / 255))
    shifted = logits.astype(np.float64)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    loss = -log_p[np.arange(7), LABELS].mean()
    top1 = (logits.argmax(-1) == LABELS).mean()
    np.testing.assert_allclose(metrics[f"{name}_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics[f"{name}_top1"], top1, rtol=1e-12)
    assert metrics[f"{name}_top5"] == 1


def test_rows_come_in_order_without_padding():
  evaluator = _evaluator(devices=2, batch=4)
  weights = {"net": steps.split(tiny.net())[1:]}
  ids, logits = [], []
  for batch, outputs in evaluator.rows(weights):
    ids += batch["ids"][batch["batch_mask"] > 0].tolist()
    logits.append(outputs["net"]["logits"])
  assert ids == [*range(7)]
  expected = tiny.net()(IMAGES.astype(np.float32) / 255)
  np.testing.assert_allclose(
    np.concatenate(logits), np.asarray(expected), rtol=1e-4, atol=1e-5
  )


def test_last_line_shows_what_the_task_does():
  metrics = {"ema_top1": 0.5, "ema_top5": 0.75, "raw_top1": 0.25, "images": 8.0}
  line = evaluate.summary(classify.Classify(), metrics, 9)
  assert line == (
    "final: top1=0.5000 top5=0.7500 (ema) top1=0.2500 (raw) images=8 steps=9"
  )
