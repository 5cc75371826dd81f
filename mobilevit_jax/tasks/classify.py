"""One class for each image: cross-entropy, Mixup and CutMix, top-1 and top-5.

Letters: `b` images, `k` classes.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from PIL import ImageDraw

from mobilevit_jax.tasks import task

_MIX_STREAM = 1  # apart from the dropout's draws
_WRONG = 2**30  # the rank of a label whose logits are no numbers


@dataclasses.dataclass(frozen=True)
class Classify(task.WithoutArrays):
  """Image classification.

  Attributes:
    label_smoothing: of the loss, in [0, 1).
    mixup: alpha of Mixup's Beta(alpha, alpha); 0 for none.
    cutmix: alpha of CutMix's; 0 for none. With both on, either is drawn,
      evenly.
    mix_each: what has draws of its own, each `"image"`, or each `"batch"` of
      a step, as in ml-cvnets.
    class_weights: what the losses of each class's images are multiplied by.
  """

  label_smoothing: float = 0.0
  mixup: float = 0.0
  cutmix: float = 0.0
  mix_each: str = "image"
  class_weights: tuple[float, ...] | None = None

  best: ClassVar[str] = "top1"
  shown: ClassVar[tuple[str, ...]] = ("top1", "top5")
  score: ClassVar[str] = "probability"

  def __post_init__(self):
    """Checks the ranges."""
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(
        f"label_smoothing={self.label_smoothing} must be at least 0 and below 1"
      )
    for name in ("mixup", "cutmix"):
      alpha = getattr(self, name)
      if not (alpha >= 0 and alpha < float("inf")):
        raise ValueError(f"{name}={alpha} must be a number from 0 up")
    if self.mix_each not in ("image", "batch"):
      raise ValueError(f"mix_each={self.mix_each!r} must be 'image' or 'batch'")

  def loss(
    self,
    model: Any,
    params: task.Tree,
    batch: task.Batch,
    key: jax.Array,
    frozen: task.Tree,
    step: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy, and `top1`: the share of right answers."""
    del params, frozen, step
    images, labels = batch["images"], batch["labels"]
    targets: list[tuple[jax.Array, Any]] = [(labels, 1.0)]
    if self.mixup or self.cutmix:
      # --- Mixing. The labels of the image that is mixed in come with its
      # share.
      images, share = mix(
        images,
        jax.random.fold_in(key, _MIX_STREAM),
        mixup=self.mixup,
        cutmix=self.cutmix,
        each=self.mix_each,
      )
      targets = [(labels, share), (jnp.roll(labels, 1), 1 - share)]
    logits = model(images, train=True, rngs=nnx.Rngs(dropout=key))
    # A blended image has the labels of both its parts, by their shares.
    # Mixup's loss is linear in the target, so the two losses are weighted in
    # place of building a [b, k] target (arXiv 1710.09412, section 2).
    loss = hits = jnp.zeros(len(logits), logits.dtype)
    for labels, share in targets:
      part = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
      # By the label of each part: a blended image counts in parts of both
      # classes.
      if self.class_weights is not None:
        part *= jnp.asarray(self.class_weights, part.dtype)[labels]
      loss += share * part
      hits += share * (jnp.argmax(logits, axis=-1) == labels)
    return jnp.mean(loss), {"top1": jnp.mean(hits)}

  def outputs(self, model: Any, batch: task.Batch) -> dict[str, jax.Array]:
    """`logits` [b, k], and of the labels `loss` in nats and `rank`, [b]."""
    logits, labels = model(batch["images"]), batch["labels"]
    return {
      "logits": logits,
      "loss": cross_entropy(logits, labels),
      "rank": rank(logits, labels),
    }

  def meter(self, source: Any) -> "Accuracy":
    """Mean loss, top-1 and top-5; the batches hold the truth."""
    del source
    return Accuracy()

  def describe(
    self, outputs: task.Rows, class_names: Sequence[str], top: int
  ) -> list[dict[str, Any]]:
    """The likeliest classes and their probabilities."""
    # Softmax of one row, in float32.
    shares = np.asarray(jax.nn.softmax(outputs["logits"]))
    # Stable: of equal probabilities the lower index comes first, as in `rank`.
    order = np.argsort(-shares, kind="stable")[:top]
    return [
      {
        "class": int(index),
        "label": class_names[index],
        "probability": float(shares[index]),
      }
      for index in order
    ]

  def draw(
    self,
    image: np.ndarray,
    outputs: task.Rows,
    class_names: Sequence[str],
  ) -> np.ndarray:
    """The image with its likeliest class written under it."""
    (first,) = self.describe(outputs, class_names, 1)
    text = first["label"]
    if first["probability"] < 1:  # which only the truth has
      text += f" {first['probability']:.0%}"
    width = max(
      image.shape[1],
      math.ceil(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(text)) + 4,
    )
    picture = Image.new("RGB", (width, image.shape[0] + 14), "white")
    picture.paste(Image.fromarray(image))
    ImageDraw.Draw(picture).text((2, image.shape[0] + 1), text, "black")
    return np.asarray(picture)

  def truth(self, rows: task.Rows, class_names: Sequence[str]) -> task.Rows:
    """Logits that leave no doubt about the label."""
    own = np.arange(len(class_names)) == rows["labels"]
    return {"logits": np.where(own, np.float32(0), -np.inf)}


class Accuracy:
  """The meter of `Classify`; it keeps two numbers an image."""

  def __init__(self):
    self._loss: list[np.ndarray] = []
    self._rank: list[np.ndarray] = []

  def add(self, rows: task.Rows) -> None:
    """Takes `loss` and `rank` of some images."""
    self._loss.append(rows["loss"])
    self._rank.append(rows["rank"])

  def merge(self, gather: Callable[[np.ndarray], np.ndarray]) -> None:
    """Joins the images of all processes."""
    # A process may have no image; the empty array gives concatenate its type.
    self._loss = [
      gather(np.concatenate([np.zeros(0, np.float32), *self._loss]))
    ]
    self._rank = [gather(np.concatenate([np.zeros(0, np.int32), *self._rank]))]

  def result(self) -> dict[str, float]:
    """`loss` in nats, `top1` and `top5` as parts of 1."""
    loss, places = np.concatenate(self._loss), np.concatenate(self._rank)
    # fsum rounds once, so that the order of the images has no effect.
    return {
      "loss": math.fsum(loss.tolist()) / len(loss),
      "top1": int((places < 1).sum()) / len(places),
      "top5": int((places < 5).sum()) / len(places),
    }


def make(
  source: Any,
  num_classes: int,
  *,
  class_weights: str = "none",
  **fields: Any,
) -> Classify:
  """The task that `config.task` describes.

  Args:
    source: the training images.
    num_classes: outputs of the net.
    class_weights: `"balanced"`, so that every class counts as much as any
      other, or `"none"`.
    **fields: of `Classify`.

  Raises:
    ValueError: for a value out of range, or for weights without labels.
  """
  if class_weights not in ("none", "balanced"):
    raise ValueError(
      f"class_weights={class_weights!r} must be 'none' or 'balanced'"
    )
  weights = None
  if class_weights == "balanced":
    if not hasattr(source, "labels"):
      raise ValueError(
        "class_weights='balanced' needs one class for each image"
      )
    weights = balanced_weights(source.labels(), num_classes)
  return Classify(**fields, class_weights=weights)


def cross_entropy(
  logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
  """Cross-entropy of each example.

  Smoothing follows ml-cvnets v0.1
  (`classification_loss_fns/label_smoothing.py`):
  `(1 - s) * nll + (s / num_classes) * sum(-log p)`.

  Args:
    logits: `[b, num_classes]`, float32 or wider.
    labels: int `[b]`, class indices.
    label_smoothing: s, in [0, 1).

  Returns:
    `[b]` losses in nats.
  """
  # log p = logits - log(sum(exp(logits))), without overflow.
  log_p = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
  if not label_smoothing:
    return nll
  uniform = -jnp.mean(log_p, axis=-1)
  return (1 - label_smoothing) * nll + label_smoothing * uniform


def balanced_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
  """Class weights under which every class counts as much as any other.

  They are inverse to the classes' counts, and 1 in the mean over the examples,
  so that the loss keeps its scale. A class without examples gets 0.
  """
  # weight of class c = N / (C N_c), N images, C classes that have any.
  counts = np.bincount(labels, minlength=num_classes)
  present = max(np.count_nonzero(counts), 1)
  with np.errstate(divide="ignore"):
    weights = np.where(counts > 0, len(labels) / (present * counts), 0.0)
  return tuple(weights.tolist())


def rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """How many classes come before the label, int32 `[b]`.

  Of equal logits the lower index comes first, so a constant net does not look
  right about everything. Where a logit is not a number the label comes last.

  Args:
    logits: `[b, k]`.
    labels: int `[b]`.
  """
  # Position in the order of falling logits, by counting, not by sorting.
  target = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  before = jnp.arange(logits.shape[-1]) < labels[:, None]
  above = jnp.sum((logits > target) | ((logits == target) & before), axis=-1)
  # NaN compares as false with everything, which would put the label first.
  return jnp.where(jnp.all(jnp.isfinite(logits), axis=-1), above, _WRONG)


def mix(
  images: jax.Array,
  key: jax.Array,
  *,
  mixup: float,
  cutmix: float,
  each: str = "image",
) -> tuple[jax.Array, jax.Array]:
  """Blends each image with the one before it, by Mixup or CutMix.

  On the device: its neighbour in the batch is a random one in a shuffled epoch.
  Sources: Zhang et al. 2017 (arXiv 1710.09412) and Yun et al. 2019 (arXiv
  1905.04899).

  Args:
    images: float `[b, h, w, 3]`.
    key: of the random draws.
    mixup: see `Classify`.
    cutmix: see `Classify`.
    each: see `Classify.mix_each`.

  Returns:
    The images, and the share of each that is its own, float `[b]`.
  """
  keys = jax.random.split(key, 4)
  b = len(images) if each == "image" else 1  # draws
  # Mixup: lambda from Beta(alpha, alpha).
  whole = _beta(keys[0], mixup, b)
  shape = (b, *images.shape[1:])
  # CutMix: the same draw is the share of the area that is kept.
  inside, kept = _boxes(keys[1], _beta(keys[2], cutmix, b), shape)
  # With both on, each image gets one of them, with equal chance.
  cut = jax.random.bernoulli(keys[3], 0.5, (b,))
  if not (mixup and cutmix):
    cut = jnp.full(b, bool(cutmix))
  share = jnp.where(cut, kept, whole)
  # Of each pixel: in a box nothing of its own, outside of it all.
  own = jnp.where(_wide(cut), 1.0 - inside, _wide(whole))
  # A plain roll: epochs are shuffled, so the neighbour is a random image, and
  # no image has to travel between devices of a shard.
  mixed = own * images + (1 - own) * jnp.roll(images, 1, axis=0)
  return mixed.astype(images.dtype), jnp.broadcast_to(share, len(images))


def _beta(key: Any, alpha: float, count: int) -> jax.Array:
  if not alpha:
    # Beta(0, 0) stands for "never": the whole image is its own.
    return jnp.ones(count)
  return jax.random.beta(key, alpha, alpha, (count,))


def _boxes(
  key: Any, share: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """Boxes of `1 - share` of the image, cut off at its edges.

  Returns:
    1 inside and 0 outside, `[b, h, w, 1]`; the share outside, `[b]`.
  """
  b, h, w, _ = shape
  # A box with sides sqrt(1 - lambda) of the image's, and a centre anywhere:
  # parts outside are cut off (CutMix, section 3.1).
  centers = jax.random.uniform(key, (2, b))
  side = jnp.sqrt(1 - share)
  inside = []
  for size, center in zip((h, w), centers, strict=True):
    # h and w in turn; the box is the outer product of two intervals.
    half = side * size / 2
    low = jnp.round(jnp.clip(center * size - half, 0, size))
    high = jnp.round(jnp.clip(center * size + half, 0, size))
    places = jnp.arange(size)
    inside.append((places >= low[:, None]) & (places < high[:, None]))
  box = inside[0][:, :, None] & inside[1][:, None, :]
  # Its area after the cut decides on the labels, not the one drawn.
  return box[..., None].astype(share.dtype), 1 - jnp.mean(box, axis=(1, 2))


def _wide(values: jax.Array) -> jax.Array:
  return values[:, None, None, None]
