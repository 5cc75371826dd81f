"""Boxes and their classes: SSD's loss, COCO's average precision.

Matching, mining and loss run on the device, inside of the step; a batch holds
boxes, classes and which of them are there. Letters: see `tasks.ssd`.
"""

from collections.abc import Sequence
import colorsys
import dataclasses
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from PIL import ImageDraw

from mobilevit_jax.models.heads import ssdlite
from mobilevit_jax.tasks import average_precision
from mobilevit_jax.tasks import ssd
from mobilevit_jax.tasks import task

DRAWN = 0.3  # score from which a box is drawn
# COCO numbers its 80 classes from 1 to 90, and left some out.
_LEFT_OUT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_IDS = tuple(i for i in range(1, 91) if i not in _LEFT_OUT)


@dataclasses.dataclass(frozen=True)
class Detect(task.WithoutArrays):
  """Detection with SSD's anchors.

  Attributes:
    num_classes: of objects.
    label_smoothing: of the classes' cross-entropy, in [0, 1).
    loss_groups: equal parts of a batch that the loss is divided in, each by its
      own positives: 4 are the paper's GPUs, 1 is the whole batch. Of a
      micro-batch, where gradients are accumulated.
    threshold: what the score of a detection must be above.
    per_class: the surest boxes of each class that compete.
    nms_iou: overlap from which the less sure of two boxes goes.
    most: detections of an image.
  """

  num_classes: int = 80
  label_smoothing: float = 0.0
  loss_groups: int = 1
  threshold: float = 0.01
  per_class: int = 400
  nms_iou: float = 0.5
  most: int = 200

  best: ClassVar[str] = "map"
  shown: ClassVar[tuple[str, ...]] = ("map", "map_50", "map_small")
  score: ClassVar[str] = "score"

  def __post_init__(self):
    """Checks the ranges."""
    for name in ("label_smoothing", "threshold"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(
          f"{name}={getattr(self, name)} must be at least 0 and below 1"
        )
    if not 0 < self.nms_iou <= 1:
      raise ValueError(f"nms_iou={self.nms_iou} must lie in (0, 1]")
    for name in ("loss_groups", "per_class", "most"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

  def loss(
    self,
    model: Any,
    params: task.Tree,
    batch: task.Batch,
    key: jax.Array,
    frozen: task.Tree,
    step: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Boxes' and classes' sums, divided by the positives of each group.

    Returns:
      The loss; its parts `box_loss` and `class_loss`, and `positives`, the
      anchors that hold an object, a mean over the images.
    """
    del params, frozen, step
    out = model(batch["images"], train=True, rngs=nnx.Rngs(dropout=key))
    # --- What each anchor should say, image by image.
    targets, labels = jax.vmap(ssd.match, (None, 0, 0, 0))(
      out["anchors"], batch["boxes"], batch["classes"], batch["valid"]
    )
    # --- Sums of each image, in float32.
    sums = ssd.losses(
      out["offsets"], out["logits"], targets, labels, self.label_smoothing
    )
    if len(labels) % self.loss_groups:
      raise ValueError(
        f"loss_groups={self.loss_groups} does not divide a batch of "
        f"{len(labels)} images"
      )
    # --- Divided by the positives of each group, as each GPU did with its own.
    box, classes, count = (
      jnp.sum(x.reshape(self.loss_groups, -1), axis=1) for x in sums
    )
    total = jnp.maximum(count, 1)  # a group may hold no object at all
    box, classes = jnp.mean(box / total), jnp.mean(classes / total)
    return box + classes, {
      "box_loss": box,
      "class_loss": classes,
      "positives": jnp.sum(count) / len(labels),
    }

  def fits(self, boxes: np.ndarray, size: int) -> np.ndarray:
    """Which boxes an anchor of an image of that size matches, bool `[n]`.

    Args:
      boxes: `[n, 4]`, as parts of the image.
      size: side of the image, in pixels.
    """
    # The anchors depend on the size of the maps alone, not on the weights.
    anchors = ssdlite.anchors(ssdlite.map_sizes(size, size))
    return ssd.matched(boxes, anchors)

  def outputs(self, model: Any, batch: task.Batch) -> dict[str, jax.Array]:
    """`boxes` `[b, most, 4]` as parts of the image, `scores`, `classes`.

    The surest come first; a score of 0 stands for no detection.
    """
    # Fixed shapes, as the step is compiled: what lies after the last detection
    # has a score of 0.
    found = ssd.detect(
      **ssdlite.decoded(model(batch["images"])),
      threshold=self.threshold,
      per_class=self.per_class,
      most_iou=self.nms_iou,
      most=self.most,
    )
    return found._asdict()

  def meter(self, source: Any) -> average_precision.AveragePrecision:
    """COCO's average precision over the source's images."""
    return average_precision.AveragePrecision(source)

  def describe(
    self, outputs: task.Rows, class_names: Sequence[str], top: int
  ) -> list[dict[str, Any]]:
    """The surest detections; `box` is x0, y0, x1, y1 as parts of the image."""
    # Detections come sorted, so those of a score above 0 are the first.
    count = min(top, int(np.count_nonzero(outputs["scores"])))
    return [
      {
        "class": int(outputs["classes"][i]),
        "label": class_names[outputs["classes"][i]],
        "score": float(outputs["scores"][i]),
        "box": [round(float(x), 6) for x in outputs["boxes"][i]],
      }
      for i in range(count)
    ]

  def coco_results(
    self, image: str, outputs: task.Rows, size: tuple[int, int]
  ) -> list[dict[str, Any]]:
    """All detections of an image, as entries of COCO's file of results.

    Args:
      image: its id, a number or another name.
      outputs: of the image.
      size: its height and width, in pixels.

    Returns:
      For each one `image_id`, `category_id`, `bbox` and `score`. Categories of
      a net of 80 classes have COCO's own ids, others count from 1.
    """
    height, width = size
    # COCO's 80 classes have ids from 1 to 90, with gaps.
    ids = _COCO_IDS if self.num_classes == len(_COCO_IDS) else None
    # --- The pairs of COCO's results file: corner and sides, in pixels.
    results = []
    for i in range(int(np.count_nonzero(outputs["scores"]))):
      box = outputs["boxes"][i] * np.array([width, height] * 2)
      label = int(outputs["classes"][i])
      corner, sides = box[:2].tolist(), (box[2:] - box[:2]).tolist()
      results.append(
        {
          "image_id": int(image) if image.isdecimal() else image,
          "category_id": ids[label] if ids else label + 1,
          "bbox": [round(x, 3) for x in (*corner, *sides)],
          "score": round(float(outputs["scores"][i]), 6),
        }
      )
    return results

  def draw(
    self,
    image: np.ndarray,
    outputs: task.Rows,
    class_names: Sequence[str],
  ) -> np.ndarray:
    """The image with its boxes of a score of at least 0.3, and their names."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    height, width = image.shape[:2]
    found = self.describe(outputs, class_names, len(outputs["scores"]))
    # The least sure first, so that the surest lies on top.
    for one in reversed([one for one in found if one["score"] >= DRAWN]):
      colour = _colour(one["class"])
      x0, y0, x1, y1 = np.multiply(one["box"], [width, height] * 2).tolist()
      pen.rectangle((x0, y0, x1, y1), outline=colour, width=2)
      text = one["label"]
      if one["score"] < 1:  # which only the truth has
        text += f" {one['score']:.0%}"
      # The name stands above the box, or inside it at the image's upper edge.
      place = (x0 + 2, max(y0 - 11, 0))
      pen.rectangle(pen.textbbox(place, text), fill=colour)
      pen.text(place, text, "white")
    return np.asarray(picture)

  def truth(self, rows: task.Rows, class_names: Sequence[str]) -> task.Rows:
    """The boxes of the image, all of them sure."""
    del class_names
    return {
      "boxes": rows["boxes"],
      "classes": rows["classes"],
      "scores": rows["valid"],
    }


def _colour(index: int) -> tuple[int, int, int]:
  """A dark colour of a class; neighbours' are far apart on the circle."""
  # 0.618, the golden section, never comes close to a colour again soon.
  red, green, blue = colorsys.hsv_to_rgb(index * 0.618 % 1, 0.9, 0.75)
  return round(255 * red), round(255 * green), round(255 * blue)


def make(source: Any, num_classes: int, **fields: Any) -> Detect:
  """The task that `config.task` describes.

  Args:
    source: the training images; None for a net that only looks at some.
    num_classes: of objects.
    **fields: of `Detect`.

  Raises:
    ValueError: for a value out of range, images without boxes, or if
      pycocotools is missing.
  """
  # A source without boxes can't train a detector; without pycocotools it can't
  # be evaluated, which is better known before a day of training than after.
  if source is not None:
    if not hasattr(source, "truth"):
      raise ValueError(
        f"{source.name} has no boxes, which detection needs; see "
        "config.data.name"
      )
    average_precision.library()
  return Detect(num_classes, **fields)
