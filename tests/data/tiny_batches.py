"""Small pictures, a plan for them and all of its batches."""

import cv2
import numpy as np

from mobilevit_jax.data import pipeline
from mobilevit_jax.data.plan import BatchPlan
from mobilevit_jax.data.transforms import classify

NUM_IMAGES = 23
SEED = 7


def write_images(folder, num_images):
  """Small pictures of many shapes, in two classes."""
  rng = np.random.default_rng(0)
  for number in range(num_images):
    path = folder / f"class{number % 2}" / f"{number:02}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = rng.integers(8, 40, 2)
    pixels = rng.integers(256, size=(height, width, 3)).astype(np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def make_plan(num_examples=NUM_IMAGES, **overrides):
  """Batches of 8 at 16 px and of 4 at 24 px; both sizes occur."""
  fields = {
    "seed": 1,
    "sizes": (16, 24),
    "base_size": 24,
    "base_batch": 2,
    "groups": 2,
    "num_epochs": 3,
  }
  return BatchPlan(num_examples, **(fields | overrides))


def train(source, plan=None, **overrides):
  """All training batches of one iterator."""
  fields = {
    "plan": plan or make_plan(len(source)),
    "seed": SEED,
    "transform": classify.ClassifyTransform(),
  }
  with pipeline.train_batches(source=source, **(fields | overrides)) as batches:
    return list(batches)


def evaluate(source, transform=None, **fields):
  """All evaluation batches of one iterator."""
  transform = transform or classify.ClassifyTransform()
  with pipeline.eval_batches(source, transform, **fields) as batches:
    return list(batches)


def assert_equal(actual, expected):
  """Batches equal to the bit, in their types too."""
  assert len(actual) == len(expected)
  for a, e in zip(actual, expected, strict=True):
    assert a.keys() == e.keys()
    for key in e:
      np.testing.assert_array_equal(a[key], e[key], strict=True)
