"""A class for each pixel: the loss over pixels, one confusion matrix, mean IoU.

Letters: `b` images, `h w` pixels, `k` classes. Masks hold a class from 0, or
255 for pixels that neither train nor count.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any, ClassVar

import cv2
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from PIL import ImageDraw

from mobilevit_jax.models.heads import deeplabv3
from mobilevit_jax.tasks import task

IGNORED = 255
PROTOCOLS = ("stretch", "aspect", "slide")
CLASS_WEIGHTS = ("none", "frequency")
_OPACITY = 0.6  # of the colours over an image
_LEGEND_ROW = 14  # pixels


@dataclasses.dataclass(frozen=True)
class Segment(task.WithoutArrays):
  """Semantic segmentation.

  Attributes:
    num_classes: outputs of a pixel.
    label_smoothing: of the cross-entropy, in [0, 1).
    class_weights: `"frequency"` multiplies a pixel's loss by
      1 / ln(1.1 + share of its class in the batch) (ml-cvnets main,
      `class_weighting.py`); or `"none"`.
    auxiliary: weight of the auxiliary head's loss, where there is one.
    dice: weight of the Dice loss beside the cross-entropy; 0 for none.
    focal: gamma of the focal loss (arXiv 1708.02002); 0 is cross-entropy.
    protocol: how evaluation and prediction come from what the transform of the
      same protocol gives: see `outputs`.
    window: side of the sliding window, in pixels.
    overlap: part of the window that the next one sees again.
  """

  num_classes: int
  label_smoothing: float = 0.0
  class_weights: str = "none"
  auxiliary: float = 0.4
  dice: float = 0.0
  focal: float = 0.0
  protocol: str = "stretch"
  window: int = 512
  overlap: float = 0.5

  best: ClassVar[str] = "miou"
  shown: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy")
  # Share of the image's pixels.
  score: ClassVar[str] = "share"

  def __post_init__(self):
    """Checks the ranges."""
    for name in ("label_smoothing", "overlap"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(
          f"{name}={getattr(self, name)} must be at least 0 and below 1"
        )
    for name in ("auxiliary", "dice", "focal"):
      if not 0 <= getattr(self, name) < math.inf:
        raise ValueError(f"{name}={getattr(self, name)} must be from 0 up")
    for name, allowed in (
      ("class_weights", CLASS_WEIGHTS),
      ("protocol", PROTOCOLS),
    ):
      if getattr(self, name) not in allowed:
        raise ValueError(
          f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}"
        )
    if self.window < 32:
      raise ValueError(f"window={self.window} must be at least 32")
    if not 2 <= self.num_classes < IGNORED:
      raise ValueError(
        f"num_classes={self.num_classes} must be from 2 to {IGNORED - 1}"
      )

  def loss(
    self,
    model: Any,
    params: task.Tree,
    batch: task.Batch,
    key: jax.Array,
    frozen: task.Tree,
    step: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean over the pixels that are not ignored, and their accuracy."""
    del params, frozen, step
    masks = batch["masks"].astype(jnp.int32)
    found = model(batch["images"], train=True, rngs=nnx.Rngs(dropout=key))
    if not isinstance(found, dict):
      found = {"logits": found}
    # Logits grow to the mask's size, rather than the mask shrinking to theirs:
    # thin objects would vanish from it.
    enlarged = {
      name: model.head.enlarge(logits, *masks.shape[1:])
      for name, logits in found.items()
    }
    logits = enlarged["logits"]
    loss = self.pixel_loss(logits, masks)
    if "auxiliary" in enlarged:
      # ml-cvnets since v0.2; v0.1 took half of this sum.
      loss += self.auxiliary * self.pixel_loss(enlarged["auxiliary"], masks)
    # Ignored pixels have no class, so they are neither right nor wrong.
    valid = masks != IGNORED
    hits = valid & (jnp.argmax(logits, axis=-1) == masks)
    accuracy = jnp.sum(hits) / jnp.maximum(jnp.sum(valid), 1)
    return loss, {"pixel_accuracy": accuracy}

  def pixel_loss(self, logits: jax.Array, masks: jax.Array) -> jax.Array:
    """The loss of logits `[b, h, w, k]` for masks `[b, h, w]`, in nats.

    It is 0 where all pixels are ignored.
    """
    valid = (masks != IGNORED).astype(logits.dtype)
    # One-hot, [b, h, w, k]: an ignored pixel, 255, equals none of the classes.
    truth = (masks[..., None] == jnp.arange(logits.shape[-1])).astype(
      logits.dtype
    )
    log_p = jax.nn.log_softmax(logits)
    own = jnp.sum(truth * log_p, axis=-1)
    smoothing = self.label_smoothing
    # Label smoothing as in `classify.cross_entropy`, at each pixel.
    losses = -(1 - smoothing) * own - smoothing * jnp.mean(log_p, axis=-1)
    if self.focal:
      # Focal loss: (1 - p)^gamma times the cross-entropy; sure pixels fade.
      losses *= (1 - jnp.exp(own)) ** self.focal
    weights = valid
    if self.class_weights == "frequency":
      counts = jnp.sum(truth, axis=(0, 1, 2))
      share = counts / jnp.maximum(jnp.sum(counts), 1)
      # A class that is absent weighs nothing: it has no pixel.
      weights = jnp.sum(truth / jnp.log(1.1 + share), axis=-1)
    # A weighted mean. The floor keeps a batch of ignored pixels at 0, in place
    # of 0 / 0.
    loss = jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1e-6)
    if self.dice:
      loss += self.dice * _dice(jnp.exp(log_p) * valid[..., None], truth)
    return loss

  def outputs(self, model: Any, batch: task.Batch) -> dict[str, jax.Array]:
    """What the meter needs of each image.

    "stretch": `classes` uint8 `[b, h, w]` at the images' size, of logits that
    are enlarged bilinearly; "slide": the same, of the mean over windows of
    their logits. "aspect": the `logits` themselves, float32 `[b, h / stride,
    w / stride, k]`, which the meter enlarges to an image's original size, and
    `aligned`: how (`deeplabv3.resize_weights`).
    """
    images = batch["images"]
    if self.protocol == "slide":
      logits = self._slide(model, images)
    else:
      logits = model(images)
      if self.protocol == "aspect":
        # Logits leave at their own size: the images of a batch have other
        # original sizes, which only the meter knows.
        aligned = jnp.full(len(images), model.head.aligned)
        return {"logits": logits, "aligned": aligned}
      logits = model.head.enlarge(logits, *images.shape[1:3])
    return {"classes": jnp.argmax(logits, axis=-1).astype(jnp.uint8)}

  def _slide(self, model: Any, images: jax.Array) -> jax.Array:
    """The mean of the logits of all windows that see a pixel."""
    b, h, w, _ = images.shape
    size = min(self.window, h), min(self.window, w)
    # A window is never larger than the image.
    starts = [
      _starts(side, window, self.overlap)
      for side, window in zip((h, w), size, strict=True)
    ]
    corners = jnp.array(
      [(top, left) for top in starts[0] for left in starts[1]]
    )

    # One window's logits are added at its place. A scan compiles the net once,
    # whatever the number of windows.
    def add(total: jax.Array, corner: jax.Array) -> tuple[jax.Array, None]:
      place = (0, corner[0], corner[1], 0)
      window = jax.lax.dynamic_slice(images, place, (b, *size, 3))
      logits = model.head.enlarge(model(window), *size)
      # A further channel counts the windows.
      logits = jnp.concatenate([logits, jnp.ones((b, *size, 1))], axis=-1)
      before = jax.lax.dynamic_slice(total, place, logits.shape)
      return jax.lax.dynamic_update_slice(total, before + logits, place), None

    zeros = jnp.zeros((b, h, w, self.num_classes + 1))
    total, _ = jax.lax.scan(add, zeros, corners)
    return total[..., :-1] / total[..., -1:]

  def meter(self, source: Any) -> "Confusion":
    """Mean IoU at the images' original sizes."""
    return Confusion(source, self.num_classes)

  def describe(
    self, outputs: task.Rows, class_names: Sequence[str], top: int
  ) -> list[dict[str, Any]]:
    """The classes with the most pixels, and their shares."""
    classes = classes_of(outputs)
    counts = np.bincount(classes.ravel(), minlength=len(class_names))
    order = np.argsort(-counts, kind="stable")[:top]
    return [
      # Ties go to the lower class.
      {
        "class": int(index),
        "label": class_names[index],
        "share": float(counts[index] / classes.size),
      }
      for index in order
      if counts[index]
    ]

  def draw(
    self, image: np.ndarray, outputs: task.Rows, class_names: Sequence[str]
  ) -> np.ndarray:
    """The image under the classes' colours, and a legend below it."""
    height, width = image.shape[:2]
    classes, colours = classes_of(outputs, height, width), palette()
    present = [index for index in np.unique(classes) if index != IGNORED]
    legend = [(str(class_names[index]), colours[index]) for index in present]
    return _with_legend(overlay(image, classes), legend)

  def picture(self, outputs: task.Rows, size: tuple[int, int]) -> Image.Image:
    """The mask as a palette image of `size`, whose indices are the classes."""
    image = Image.fromarray(classes_of(outputs, *size))
    image.putpalette(np.array(palette(), np.uint8).tobytes())
    return image

  def truth(self, rows: task.Rows, class_names: Sequence[str]) -> task.Rows:
    """The mask itself."""
    del class_names
    return {"classes": rows["masks"]}


def make(source: Any, num_classes: int, **fields: Any) -> Segment:
  """The task that `config.task` describes.

  Args:
    source: the training images, of which nothing is asked.
    num_classes: outputs of the net.
    **fields: of `Segment`.

  Raises:
    ValueError: for a value out of range.
  """
  del source
  return Segment(num_classes, **fields)


def _dice(shares: jax.Array, truth: jax.Array) -> jax.Array:
  """1 - Dice, mean over the classes in the batch (arXiv 1606.04797)."""
  axes = (0, 1, 2)
  both, sums = jnp.sum(shares * truth, axes), jnp.sum(shares + truth, axes)
  present = (jnp.sum(truth, axes) > 0).astype(shares.dtype)
  losses = 1 - 2 * both / jnp.maximum(sums, 1e-6)
  return jnp.sum(losses * present) / jnp.maximum(jnp.sum(present), 1)


def _starts(side: int, window: int, overlap: float) -> list[int]:
  """Where windows begin, evenly spread: the first and last at the edges."""
  step = max(window * (1 - overlap), 1)
  count = 1 + math.ceil((side - window) / step)
  # Rounded to whole pixels: the windows' distances differ by one at most.
  return [round(i * (side - window) / max(count - 1, 1)) for i in range(count)]


def classes_of(
  outputs: task.Rows, height: int | None = None, width: int | None = None
) -> np.ndarray:
  """The classes of one image, uint8 `[height, width]`.

  `classes` are resized by the nearest; `logits` bilinearly, before the largest
  is taken. Without a size they keep their own.
  """
  if "classes" in outputs:
    classes = outputs["classes"]
    if height is None or width is None or classes.shape == (height, width):
      return classes
    # OpenCV's plain "nearest", floor(i * h / height), is torch's too.
    size = (int(width), int(height))
    return cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST)
  logits = outputs["logits"]
  if height is not None and width is not None:
    aligned = bool(outputs["aligned"])
    # float32: the products are large, and argmax needs no more.
    rows, columns = (
      deeplabv3.resize_weights(side, int(to), aligned=aligned)
      for side, to in zip(logits.shape, (height, width), strict=False)
    )
    logits = np.einsum("Hh,hwk->Hwk", rows.astype(np.float32), logits)
    logits = np.matmul(columns.astype(np.float32), logits)
  return np.argmax(logits, axis=-1).astype(np.uint8)


class Confusion:
  """One confusion matrix over a set, at each image's original size.

  Counts are integers, so neither the order of the images nor the batches and
  processes that they come in change a digit.

  Attributes:
    counts: int64 `[k, k]`: pixels by their class, and the class found.
  """

  def __init__(self, source: Any, num_classes: int):
    """A meter of so many classes, at least those of the source.

    `source` is `Masked`: it gives an image's mask by its id.
    """
    self._source, self._k = source, num_classes
    self.counts = np.zeros((self._k, self._k), np.int64)

  def add(self, rows: task.Rows) -> None:
    """Takes `classes`, or `logits` and `aligned`, of some images."""
    parts = {"classes", "logits", "aligned"} & rows.keys()
    for place, index in enumerate(rows["ids"].tolist()):
      truth = self._source.mask(index)
      outputs = {name: rows[name][place] for name in parts}
      found = classes_of(outputs, *truth.shape)
      self.counts += confusion(truth, found, self._k)

  def merge(self, gather: Callable[[np.ndarray], np.ndarray]) -> None:
    """Adds the matrices of all processes."""
    self.counts = gather(self.counts[None]).sum(axis=0)

  def result(self) -> dict[str, float]:
    """`miou`, `pixel_accuracy`, and `iou_CLASS` of each class that there is.

    Of the data's classes: the net may have more. One that neither the truth
    nor the net has is left out of the mean.
    """
    names = self._source.class_names
    ious = iou(self.counts)[: len(names)]
    there = ~np.isnan(ious)
    total = max(int(self.counts.sum()), 1)
    result = {
      "miou": float(np.mean(ious[there])) if there.any() else 0.0,
      "pixel_accuracy": int(np.trace(self.counts)) / total,
    }
    return result | {
      f"iou_{names[index]}": float(ious[index])
      for index in np.flatnonzero(there)
    }


def confusion(truth: np.ndarray, found: np.ndarray, k: int) -> np.ndarray:
  """Pixels by class and class found, int64 `[k, k]`, ignored ones left out."""
  # Ignored pixels, 255, lie above every class.
  valid = truth < k
  # One index for a pair of classes: row k + column.
  pairs = truth[valid].astype(np.int64) * k + found[valid]
  return np.bincount(pairs, minlength=k * k).reshape(k, k)


def iou(counts: np.ndarray) -> np.ndarray:
  """TP / (TP + FP + FN) of each class, float64 `[k]`; NaN for one of nothing.

  Args:
    counts: see `Confusion`.
  """
  right = np.diag(counts)
  # union = predicted + true - both. A class that occurs in neither is no 0, but
  # not a number, and is left out of the mean.
  union = counts.sum(axis=0) + counts.sum(axis=1) - right
  return np.divide(
    right, union, out=np.full(len(right), np.nan), where=union > 0
  )


def overlay(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """The image, uint8 `[h, w, 3]`, under the colours of `classes` `[h, w]`."""
  colours = np.array(palette(), np.uint8)
  # Mixed in float and rounded once.
  mixed = _OPACITY * colours[classes] + (1 - _OPACITY) * image
  # The background and what is ignored hide nothing.
  plain = (classes == 0) | (classes == IGNORED)
  return np.where(plain[..., None], image, np.rint(mixed).astype(np.uint8))


def palette() -> list[tuple[int, int, int]]:
  """Pascal VOC's 256 colours, RGB.

  The bits of an index, three by three from the lowest, are the bits of red,
  green and blue from the highest (VOCdevkit, `VOClabelcolormap.m`).
  """
  colours = []
  for index in range(256):
    channels = [0, 0, 0]
    for place in range(8):
      # Bit `place` of the index goes to channel place % 3, into the highest bit
      # that is still free there.
      channels[place % 3] |= (index >> place & 1) << (7 - place // 3)
    colours.append((channels[0], channels[1], channels[2]))
  return colours


def _with_legend(
  image: np.ndarray, legend: Sequence[tuple[str, tuple[Any, ...]]]
) -> np.ndarray:
  """The image with a row of colour and name for each entry under it."""
  height, width = image.shape[:2]
  ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
  lengths = [math.ceil(ruler.textlength(name)) for name, _ in legend]
  wide = max([width, *(length + _LEGEND_ROW + 4 for length in lengths)])
  picture = Image.new(
    "RGB", (wide, height + _LEGEND_ROW * len(legend) + 2), "white"
  )
  picture.paste(Image.fromarray(image))
  pen = ImageDraw.Draw(picture)
  for row, (name, colour) in enumerate(legend):
    top = height + 2 + row * _LEGEND_ROW
    box = (2, top, _LEGEND_ROW - 2, top + _LEGEND_ROW - 4)
    pen.rectangle(box, fill=tuple(map(int, colour)), outline="black")
    pen.text((_LEGEND_ROW + 2, top - 1), name, "black")
  return np.asarray(picture)
