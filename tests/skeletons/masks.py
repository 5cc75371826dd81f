"""A class for each pixel: a 1x1 head, truth at its original size, mean IoU."""

import cv2
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mobilevit_jax.data import examples
from mobilevit_jax.data.transforms import geometry
from mobilevit_jax.models import layers


class Source:
  """Blobs of light on noise, in pictures of many sizes."""

  class_names = ("dark", "light")

  def __init__(self, data_dir, split):
    del data_dir
    self.name, self._first = f"blobs/{split}", 100 * (split != "train")

  def __len__(self):
    return 24 if self._first == 0 else 11

  def __getitem__(self, index):
    rng = np.random.default_rng(self._first + index)
    height, width = rng.integers(18, 40, 2)
    coarse = rng.random((3, 3)) > 0.5
    mask = cv2.resize(coarse.astype(np.uint8), (width, height))
    image = rng.integers(0, 60, (height, width, 3)) + 150 * mask[..., None]
    target = {"mask": mask}
    return examples.Example(image.astype(np.uint8), target, index, f"#{index}")

  def place(self, index):
    return self.name, index


class Transform:
  """Everything is stretched to a square."""

  max_pixels = 10**8

  def spec(self, size, *, train):
    spec = {"images": ((size, size, 3), np.uint8)}
    return spec | ({"masks": ((size, size), np.uint8)} if train else {})

  def decode(self, example):
    return example

  def _stretch(self, example, size, flip=False):
    box = (0, 0, *example.image.shape[:2])
    return geometry.Affine.crop(box, size, size, flip=flip)

  def train(self, example, size, rng):
    move = self._stretch(example, size, rng.random() < 0.5)
    mask = move.mask(example.target["mask"], fill=255)
    return {"images": move.pixels(example.image), "masks": mask}

  def evaluate(self, example, size):
    return {"images": self._stretch(example, size).pixels(example.image)}


class Head(nnx.Module):
  """Logits of each pixel, enlarged from the last map."""

  LAYERS = CLASSIFIERS = ("classify",)
  FROZEN, OUTPUTS = (), {"logits": lambda logits: logits}

  def __init__(self, backbone, *, num_classes):
    width, self.num_classes = backbone.channels[-1], num_classes
    self.classify = layers.Linear(width, num_classes)

  def __call__(self, features, train=False, rngs=None):
    return self.classify(features["stage5"])


class Task:
  best, score, frozen = "miou", "share", {}
  shown = ("miou",)

  def init(self, seed):
    return {}

  def _logits(self, model, batch, **how):
    images = batch["images"]
    logits = model(images, **how)
    return jax.image.resize(
      logits, (*images.shape[:3], logits.shape[-1]), "bilinear"
    )

  def loss(self, model, params, batch, key, frozen, step):
    logits = self._logits(model, batch, train=True, rngs=nnx.Rngs(dropout=key))
    loss = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch["masks"].astype(jnp.int32)
    )
    return jnp.mean(loss), {}

  def outputs(self, model, batch):
    logits = self._logits(model, batch)
    return {"classes": jnp.argmax(logits, axis=-1).astype(jnp.uint8)}

  def meter(self, source):
    return Meter(source)


class Meter:
  """One confusion matrix over the set, at each image's original size."""

  def __init__(self, source):
    self._source = source
    self._counts = np.zeros((1, 2, 2), np.int64)

  def add(self, rows):
    for index, (height, width), classes in zip(
      rows["ids"], rows["sizes"], rows["classes"], strict=True
    ):
      truth = self._source[int(index)].target["mask"]
      assert truth.shape == (height, width)
      found = cv2.resize(
        classes, (int(width), int(height)), interpolation=cv2.INTER_NEAREST
      )
      np.add.at(self._counts[0], (truth, found), 1)

  def merge(self, gather):
    self._counts = gather(self._counts).sum(axis=0, keepdims=True)

  def result(self):
    (counts,) = self._counts
    right = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    return {"miou": float(np.mean(right / np.maximum(union, 1)))}


def make(source, num_classes):
  return Task()
