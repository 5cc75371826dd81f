"""Figures of the architecture; their shapes and numbers come from the model."""

import functools

import jax.numpy as jnp
import numpy as np

from docs.generate import svg
from mobilevit_jax import models
from mobilevit_jax import summary
from mobilevit_jax.models import mobilevit


@functools.cache
def layers(name: str, size: int = 256) -> list[summary.Layer]:
  """The layers of a model for one square image; nothing is computed."""
  model = models.abstract_model(name, depthwise="conv")
  return summary.summarize(model, size, size)


def block(name: str = "mobilevit_s", stage: int = 4, size: int = 256) -> str:
  """The MobileViT block of a stage (3 to 5), with the shapes it passes on."""
  variant = mobilevit.VARIANTS[name]
  c, d = variant.channels[stage], variant.dims[stage - 3]
  depth, heads = variant.depths[stage - 3], mobilevit.HEADS
  side = size // 2**stage
  n = side * side // 4
  here = f"{side} x {side} x "
  rows = [
    ("3 x 3 convolution, BatchNorm, SiLU", "", f"{here}{c}"),
    ("1 x 1 convolution", "no bias, no norm, no activation", f"{here}{d}"),
    ("unfold", "place in the patch, patch, width", f"4 x {n} x {d}"),
    (
      f"{depth} transformer layers",
      f"{heads} heads of {d // heads} numbers; MLP {d} → {2 * d} → {d}",
      f"4 x {n} x {d}",
    ),
    ("LayerNorm", "", f"4 x {n} x {d}"),
    ("fold", "back to where the pixels were", f"{here}{d}"),
    ("1 x 1 convolution, BatchNorm, SiLU", "", f"{here}{c}"),
    ("beside the block's input", "", f"{here}{2 * c}"),
    ("3 x 3 convolution, BatchNorm, SiLU", "", f"{here}{c}"),
  ]
  left, width, high, step = 60, 290, 40, 66
  middle = left + width / 2
  drawing = svg.Drawing(
    470,
    40 + step * len(rows),
    f"The MobileViT block of stage {stage} of {name}, layer by layer",
  )
  drawing.text(middle + 14, 24, f"{here}{c}", "shape", anchor="start")
  top = 8.0
  for index, (title, note, shape) in enumerate(rows):
    below = 40 + step * index
    drawing.arrow([(middle, top), (middle, below)])
    kind = "mark" if 2 <= index <= 5 else "box"
    drawing.rect(left, below, width, high, kind)
    drawing.text(middle, below + (18 if note else 25), title)
    if note:
      drawing.text(middle, below + 33, note, "note")
    top = below + high
    drawing.text(middle + 14, top + 18, shape, "shape", anchor="start")
  drawing.line([(middle, top), (middle, top + 24)])
  # The input goes round everything to the concatenation, the row before last.
  level = 40 + step * (len(rows) - 2) + high / 2
  drawing.line([(middle, 14), (26, 14), (26, level), (left, level)])
  return drawing.markup()


def unfold(side: int = 6, chosen: int = 15) -> str:
  """A map of `side` squared pixels and what `unfold` makes of it.

  Colours are the place in the 2 x 2 patch. The outlined pixels are those that
  the chosen one attends to; the dashed square is what its 3 x 3 convolution
  sees.
  """
  pixels = jnp.arange(side * side).reshape(1, side, side, 1)
  rows = np.asarray(mobilevit.unfold(pixels))[0, :, :, 0]
  place = {int(pixel): p for p, row in enumerate(rows) for pixel in row}
  cell, left = 40, 60
  count = side * side // 4
  drawing = svg.Drawing(
    left + cell * count + 20,
    40 + cell * side + 70 + cell * 4 + 20,
    f"A map of {side} by {side} pixels; unfolding gives 4 rows, one for each "
    f"place in the 2 by 2 patch. Pixel {chosen} attends to its own row.",
  )

  def put(x: float, y: float, pixel: int) -> None:
    drawing.rect(x, y, cell, cell, f"p{place[pixel]}")
    drawing.text(x + cell / 2, y + 25, str(pixel), "cell")
    if place[pixel] == place[chosen]:
      kind = "chosen" if pixel == chosen else "peer"
      drawing.rect(x + 3, y + 3, cell - 6, cell - 6, kind)

  at = left + (count - side) * cell // 2
  drawing.text(at + cell * side / 2, 22, "the map, h x w")
  for pixel in range(side * side):
    put(at + pixel % side * cell, 34 + pixel // side * cell, pixel)
  for line in range(0, side + 1, 2):
    x, y = at + line * cell, 34 + line * cell
    drawing.line([(x, 34), (x, 34 + side * cell)], "patch")
    drawing.line([(at, y), (at + side * cell, y)], "patch")
  row, column = divmod(chosen, side)
  x, y, wide = at + (column - 1) * cell, 34 + (row - 1) * cell, 3 * cell
  drawing.rect(x + 4, y + 4, wide - 8, wide - 8, "seen")
  top, middle = 34 + side * cell + 70, at + cell * side / 2
  drawing.arrow([(middle, top - 62), (middle, top - 38)])
  drawing.text(middle + 14, top - 44, "unfold", anchor="start")
  drawing.text(
    left + count * cell / 2, top - 12, f"n = {count} patches", "note"
  )
  for p, row_pixels in enumerate(rows):
    drawing.text(left - 10, top + p * cell + 25, f"p = {p}", "note", "end")
    for index, pixel in enumerate(row_pixels):
      put(left + index * cell, top + p * cell, int(pixel))
  return drawing.markup()


def stages(name: str = "mobilevit_s", size: int = 256) -> str:
  """The layers from image to logits: outputs, parameters, multiply-adds."""
  found = layers(name, size)
  step, top, bar = 26, 40, 100
  columns = (0, 84, 220, 400)
  drawing = svg.Drawing(
    560,
    top + step * len(found) + 8,
    f"Layers of {name} at {size} px: output, parameters, multiply-adds",
  )
  titles = ("layer", f"output at {size} px", "parameters", "multiply-adds")
  for x, title in zip(columns, titles, strict=True):
    drawing.text(x, 20, title, "note", "start")
  most = [
    max(layer.params for layer in found),
    max(layer.macs.total for layer in found),
  ]
  for index, layer in enumerate(found):
    y = top + step * index
    hybrid = layer.name in ("stage3.1", "stage4.1", "stage5.1")
    drawing.text(columns[0], y + 14, layer.name, "text", "start")
    shape = " x ".join(str(n) for n in layer.shape[1:])
    drawing.text(columns[1], y + 14, shape, "text", "start")
    values = [(layer.params, "{:,}"), (layer.macs.total / 1e6, "{:,.1f} M")]
    scales = [most[0], most[1] / 1e6]
    for x, (value, form), scale in zip(
      columns[2:], values, scales, strict=True
    ):
      length = round(bar * value / scale, 1)
      drawing.rect(x, y + 3, length, 15, "mark" if hybrid else "bar")
      drawing.text(x + length + 5, y + 15, form.format(value), "note", "start")
  return drawing.markup()


def totals(name: str) -> str:
  """A row of a table: parameters, those of the classifier, multiply-adds."""
  found = layers(name)
  params = sum(layer.params for layer in found)
  kinds = [layer.macs for layer in found]
  macs = sum(kinds, summary.Macs())
  cells = [
    name,
    f"{params:,}",
    f"{found[-1].params:,}",
    f"{macs.total:,}",
    *(
      f"{100 * part / macs.total:.0f} %"
      for part in (macs.conv, macs.linear, macs.attention)
    ),
  ]
  return f"| {' | '.join(cells)} |"


def sizes(family: str = "mobilevit") -> str:
  """The table of `totals` of a family's variants."""
  head = (
    "| model | parameters | of them in the classifier | multiply-adds at "
    "256 px | convolutions | dense layers | attention |"
  )
  rows = [totals(name) for name in models.FAMILIES[family].variants]
  return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])
