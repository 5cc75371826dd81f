"""Figures of the heads; their shapes and numbers come from the model."""

from flax import nnx
import jax

from docs.generate import svg
from mobilevit_jax import models
from mobilevit_jax.models.heads import ssdlite


def deeplabv3(name: str = "mobilevit_s", size: int = 512) -> str:
  """DeepLabv3 on a backbone, with the shapes that it passes on.

  Args:
    name: of the net.
    size: side of the image, in pixels.
  """
  net = models.abstract_model(name, "deeplabv3")
  head, stride = net.head, net.backbone.output_stride
  channels, width = net.backbone.channels[-1], head.aspp_width
  side = size // stride
  here = f"{side} x {side} x "
  drawing = svg.Drawing(
    580,
    590,
    f"DeepLabv3 on {name}: five branches of the pyramid, joined, to classes",
  )
  middle, wide, step = 290, 104, 114

  def box(
    y: float, title: str, note: str, shape: str, kind: str = "box"
  ) -> None:
    drawing.rect(middle - 150, y, 300, 40, kind)
    drawing.text(middle, y + (18 if note else 25), title)
    if note:
      drawing.text(middle, y + 33, note, "note")
    drawing.text(middle + 14, y + 58, shape, "shape", anchor="start")

  note = f"the backbone at output stride {stride}, for {size} px"
  box(10, "stage 5", note, f"{here}{channels}", "mark")
  branches = (
    ("1 x 1", "each pixel alone"),
    *(("3 x 3", f"rate {rate}") for rate in head.rates),
    ("mean, 1 x 1", "the whole map"),
  )
  bus, top, joined = 82, 104, 200
  drawing.line([(middle, 50), (middle, bus)])
  for index, (title, about) in enumerate(branches):
    x = 10 + index * step
    centre = x + wide / 2
    drawing.arrow([(middle, bus), (centre, bus), (centre, top)])
    drawing.rect(x, top, wide, 44)
    drawing.text(centre, top + 19, title)
    drawing.text(centre, top + 36, about, "note")
    drawing.line(
      [(centre, top + 44), (centre, joined - 18), (middle, joined - 18)]
    )
  rows = (
    ("beside each other", f"{width} channels each", f"{here}{5 * width}"),
    ("1 x 1 convolution, BatchNorm, ReLU", "then dropout", f"{here}{width}"),
    (
      "1 x 1 convolution with bias",
      "a logit for each class, here VOC's",
      f"{here}{head.num_classes}",
    ),
    ("enlarge, bilinear", "", f"{size} x {size} x {head.num_classes}"),
    ("the largest", "the mask", f"{size} x {size}"),
  )
  y, above = float(joined), joined - 18.0
  for title, about, shape in rows:
    drawing.arrow([(middle, above), (middle, y)])
    box(y, title, about, shape)
    above, y = y + 40, y + 72
  return drawing.markup()


def ssdlite_levels(name: str = "mobilevit_s", size: int = 320) -> str:
  """The six maps of SSDLite, and what is predicted from each.

  Args:
    name: of the net.
    size: side of the image, in pixels.
  """
  net = models.abstract_model(name, "ssdlite")
  maps = ssdlite.map_sizes(size, size)
  channels = (*net.backbone.channels[-2:], *ssdlite.EXTRA, ssdlite.GLOBAL)
  widths = (*ssdlite.PROJECTED, *ssdlite.EXTRA)
  counts = [
    height * width * count
    for (height, width), count in zip(maps, ssdlite.PER_CELL, strict=True)
  ]
  outputs = 4 + net.head.num_classes + 1
  step, largest = 78, 56
  drawing = svg.Drawing(
    640,
    46 + step * len(maps),
    f"The six maps of SSDLite on {name} at {size} px, and their anchors",
  )
  for x, title in (
    (52, "map"),
    (200, "from"),
    (390, "filter"),
    (560, "anchors"),
  ):
    drawing.text(x, 18, title, "note")
  above = 0.0
  names = ("stage 4", "stage 5", *["separable, stride 2"] * 3, "mean, 1 x 1")
  for level, ((height, width), count) in enumerate(
    zip(maps, counts, strict=True)
  ):
    y = 64 + step * level
    side = max(largest * height / maps[0][0], 5)
    kind = "mark" if level < 2 else "bar"
    if level > 0:
      drawing.arrow([(52, above), (52, y - side / 2)])
    above = y + side / 2
    drawing.rect(52 - side / 2, y - side / 2, side, side, kind)
    drawing.text(200, y - 2, names[level])
    shape = f"{height} x {width} x {channels[level]}"
    drawing.text(200, y + 16, shape, "shape")
    drawing.rect(276, y - 22, 228, 44)
    if level < len(widths):
      first = f"1 x 1 to {widths[level]}, then " * (
        channels[level] != widths[level]
      )
      drawing.text(390, y - 2, f"{first}depthwise 3 x 3")
    else:
      drawing.text(390, y - 2, "as it is")
    per_cell = ssdlite.PER_CELL[level]
    drawing.text(390, y + 15, f"1 x 1 to {per_cell} x {outputs}", "note")
    drawing.text(560, y - 2, f"{count:,}")
    drawing.text(560, y + 15, f"{per_cell} at each pixel", "note")
  return drawing.markup()


def counts(head: str) -> str:
  """A table: parameters of every net with a head, and of its backbone.

  Args:
    head: `"deeplabv3"`, of 21 classes, or `"ssdlite"`, of 80.
  """
  titles = {
    "deeplabv3": ("pyramid", "parameters, 21 classes"),
    "ssdlite": ("anchors at 320 px", "parameters, 80 classes"),
  }[head]
  anchors = len(ssdlite.anchors(ssdlite.map_sizes(320, 320)))
  lines = [
    f"| net | parameters of the backbone | {' | '.join(titles)} |",
    "|---|---|---|---|",
  ]
  for name in (
    *models.FAMILIES["mobilevit"].variants,
    *models.FAMILIES["mobilevitv2"].variants,
  ):
    width = 512 if name.startswith("mobilevitv2") else 256
    fields = {"aspp_width": width} if head == "deeplabv3" else {}
    net = models.abstract_model(name, head, **fields)
    own = width if head == "deeplabv3" else f"{anchors:,}"
    sizes = [
      sum(leaf.size for leaf in jax.tree.leaves(nnx.state(part, nnx.Param)))
      for part in (net.backbone, net)
    ]
    lines.append(f"| {name} | {sizes[0]:,} | {own} | {sizes[1]:,} |")
  return "\n".join(lines)
