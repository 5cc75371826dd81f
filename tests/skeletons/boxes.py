"""A box for each image: padded truth to learn, ragged truth to judge by."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data.transforms import geometry
from mobilevit_jax.models import layers

MOST = 3


class Source:
  """Bright rectangles on noise: none to three in a picture."""

  class_names = ("thing",)

  def __init__(self, data_dir, split):
    del data_dir
    self.name, self._first = f"rectangles/{split}", 100 * (split != "train")

  def __len__(self):
    return 24 if self._first == 0 else 11

  def __getitem__(self, index):
    rng = np.random.default_rng(self._first + index)
    height, width = rng.integers(20, 40, 2)
    image = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    boxes = []
    for _ in range(index % (MOST + 1)):
      x0, y0 = rng.integers(0, (width - 9, height - 9))
      x1, y1 = np.add((x0, y0), rng.integers(4, 9, 2))
      image[y0:y1, x0:x1] = 250
      boxes.append((x0, y0, x1, y1))
    target = {"boxes": np.array(boxes, np.float64).reshape(-1, 4)}
    return examples.Example(image, target, index, f"#{index}")

  def place(self, index):
    return self.name, index


class Transform:
  """Everything is stretched to a square, the boxes by the same matrix."""

  max_pixels = 10**8

  def spec(self, size, *, train):
    spec = {"images": ((size, size, 3), np.uint8)}
    truth = {"boxes": ((MOST, 4), np.float32), "valid": ((MOST,), np.float32)}
    return spec | (truth if train else {})

  def decode(self, example):
    return example

  def train(self, example, size, rng):
    box = (0, 0, *example.image.shape[:2])
    move = geometry.Affine.crop(box, size, size, flip=rng.random() < 0.5)
    boxes, valid = np.zeros((MOST, 4)), np.zeros(MOST)
    moved = move.boxes(example.target["boxes"])
    boxes[: len(moved)], valid[: len(moved)] = moved / size, 1
    image = move.pixels(example.image)
    return {"images": image, "boxes": boxes, "valid": valid}

  def evaluate(self, example, size):
    box = (0, 0, *example.image.shape[:2])
    move = geometry.Affine.crop(box, size, size)
    return {"images": move.pixels(example.image)}


class Head(nnx.Module):
  """One box as parts of the image, from the mean of the last map."""

  LAYERS = CLASSIFIERS = ("regress",)
  FROZEN, OUTPUTS = (), {"boxes": lambda boxes: boxes}

  def __init__(self, backbone, *, num_classes):
    self.num_classes = num_classes
    self.regress = layers.Linear(backbone.channels[-1], 4)

  def __call__(self, features, train=False, rngs=None):
    return jax.nn.sigmoid(self.regress(features["stage5"].mean(axis=(1, 2))))


class Task:
  best, score, frozen = "median", "score", {}
  shown = ("median", "worst")

  def init(self, seed):
    return {}

  def loss(self, model, params, batch, key, frozen, step):
    rngs = nnx.Rngs(dropout=key)
    found = model(batch["images"], train=True, rngs=rngs)[:, None]
    distance = jnp.abs(found - batch["boxes"]).sum(axis=-1)
    total = jnp.maximum(batch["valid"].sum(), 1)  # an image may have none
    return (batch["valid"] * distance).sum() / total, {"truths": total}

  def outputs(self, model, batch):
    return {"boxes": model(batch["images"])}

  def meter(self, source):
    return Meter(source)


class Meter:
  """The median over images with boxes of how close the nearest one is."""

  def __init__(self, source):
    self._source, self._rows = source, np.zeros((0, 2))

  def add(self, rows):
    close = []
    for index, (height, width), box in zip(
      rows["ids"], rows["sizes"], rows["boxes"].astype(np.float64), strict=True
    ):
      size = (width, height, width, height)
      truth = self._source[int(index)].target["boxes"] / size
      if len(truth):
        away = np.abs(truth - box).mean(axis=1).min()
        close.append((index, 1 - away))
    self._rows = np.concatenate([self._rows, np.reshape(close, (-1, 2))])

  def merge(self, gather):
    self._rows = gather(self._rows)

  def result(self):
    close = self._rows[:, 1]
    return {"median": float(np.median(close)), "worst": float(close.min())}


def make(source, num_classes):
  return Task()
