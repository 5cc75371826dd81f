"""Figures of attention, features, receptive fields, boxes and answers.

Colour maps are matplotlib's viridis, which the colour-blind can read too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TYPE_CHECKING

import numpy as np

from mobilevit_jax.visualize.attention import AttentionMaps
from mobilevit_jax.visualize.attention import ContextScores
from mobilevit_jax.visualize.features import as_batch
from mobilevit_jax.visualize.features import contributing_area

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe and Ito's, which the colour-blind tell apart.
_COLOURS = ("#e69f00", "#56b4e9", "#d55e00", "#009e73", "#f0e442", "#cc79a7")


def plot_attention(
  maps: Mapping[str, AttentionMaps],
  image: Any,
  row: int,
  column: int,
  *,
  layer: int = -1,
) -> "Figure":
  """Where one pixel of the image looks, by stage and head.

  A square is a 2 x 2 patch of the map, whose one pixel at the query's place is
  looked at. Colours count from an even share, 1 / n: above 1 is attention,
  below 1 neglect.

  Args:
    maps: from `attention_maps`.
    image: that they are of.
    row: of the query, in pixels of the image.
    column: likewise.
    layer: transformer layer of each block, from 0, or from its end.

  Raises:
    ValueError: for a pixel outside of the image.
  """
  # Grey, so that the colours are those of attention alone.
  grey = np.asarray(as_batch(image))[0].mean(axis=-1)
  heads = next(iter(maps.values())).weights.shape[2]
  figure, axes = _grid(len(maps), heads, width=2.1, height=2.2)
  for cells, (stage, found) in zip(axes, maps.items(), strict=True):
    h, w = found.grid
    looks = found.of_pixel(row, column)[layer]
    # A pixel looks at one pixel of each patch, that of its own place: the sum
    # over a patch's 2 x 2 is that one's. The even share is 1 / n, so times n
    # patches is relative to it.
    looks = looks.reshape(heads, h // 2, 2, w // 2, 2).sum(axis=(2, 4))
    relative = looks * (h * w // 4)
    for head, cell in enumerate(cells):
      cell.imshow(grey, cmap="gray", vmin=-0.3, vmax=1.3)
      shown = cell.imshow(
        relative[head],
        cmap="viridis",
        alpha=0.65,
        vmin=0,
        # At least 2, so that nearly even attention looks even.
        vmax=max(2.0, relative.max()),
        extent=(-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5),
      )
      cell.plot(column, row, "P", ms=9, mfc="white", mec="black")
      cell.set_title(f"{stage}, head {head}", fontsize=9)
    bar = figure.colorbar(shown, ax=list(cells), shrink=0.85)
    bar.set_label("attention / even share", fontsize=8)
    bar.ax.tick_params(labelsize=8)
  figure.suptitle(f"Where pixel ({row}, {column}), the cross, looks")
  return figure


def plot_context(scores: Mapping[str, ContextScores], image: Any) -> "Figure":
  """Where separable attention gathers its context, by stage and layer.

  Each pixel of the map has its share of the softmax over all patches at its
  place. Colours count from an even share, 1 / n: above 1 a pixel is heard
  more, below 1 less.

  Args:
    scores: from `context_scores`.
    image: that they are of.
  """
  grey = np.asarray(as_batch(image))[0].mean(axis=-1)
  # Stages differ in layers; cells that one lacks are hidden below.
  columns = max(len(found.scores) for found in scores.values())
  figure, axes = _grid(len(scores), columns, width=2.1, height=2.2)
  for cells, (stage, found) in zip(axes, scores.items(), strict=True):
    # Each place's scores sum to 1 over n patches.
    relative = found.maps() * found.scores.shape[-1]
    for layer, cell in enumerate(cells):
      if layer >= len(relative):
        cell.set_visible(False)
        continue
      cell.imshow(grey, cmap="gray", vmin=-0.3, vmax=1.3)
      shown = cell.imshow(
        relative[layer],
        cmap="viridis",
        alpha=0.65,
        vmin=0,
        vmax=max(2.0, relative.max()),
        extent=(-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5),
      )
      cell.set_title(f"{stage}, layer {layer}", fontsize=9)
    bar = figure.colorbar(shown, ax=list(cells), shrink=0.85)
    bar.set_label("score / even share", fontsize=8)
    bar.ax.tick_params(labelsize=8)
  figure.suptitle("Where each layer gathers its context")
  return figure


def plot_taps(image: Any, rates: Mapping[int, Sequence[int]]) -> "Figure":
  """What the dilated branches of a pyramid see from the middle of the image.

  The grid is the backbone's last map at each output stride: a cell is one of
  its pixels. A branch reads nine of them, in its colour; those that lie outside
  of the image are padding, which says nothing.

  Args:
    image: `[h, w, 3]`.
    rates: dilations of the branches by output stride, as
      `deeplabv3.RATES`.
  """
  pixels = np.asarray(as_batch(image))[0]
  height, width = pixels.shape[:2]
  figure, axes = _grid(1, len(rates), width=3.8, height=4.3)
  for cell, (stride, dilations) in zip(axes[0], rates.items(), strict=True):
    # Maps are rounded up, so their last cell may reach over the edge.
    rows, columns = -(-height // stride), -(-width // stride)
    cell.imshow(pixels, alpha=0.75)
    for side, count, draw in (
      (width, columns, cell.axvline),
      (height, rows, cell.axhline),
    ):
      for line in range(count + 1):
        draw(min(line * stride, side) - 0.5, color="white", lw=0.4)
    # Of the nine taps of a 3 x 3 kernel, those at `dilation` from the middle.
    middle, inside = (rows // 2, columns // 2), []
    for dilation, colour in zip(dilations, _COLOURS, strict=False):
      taps = [
        (middle[0] + i * dilation, middle[1] + j * dilation)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
      ]
      seen = [
        ((x + 0.5) * stride, (y + 0.5) * stride)
        for y, x in taps
        if 0 <= y < rows and 0 <= x < columns
      ]
      inside.append(f"{dilation}: {len(seen)} of 9")
      style = {"marker": "s", "color": colour, "ls": "", "mec": "black"}
      cell.plot(
        *zip(*seen, strict=True), ms=7, label=f"rate {dilation}", **style
      )
    cell.set_title(
      f"output stride {stride}: {rows} x {columns} pixels", fontsize=9
    )
    cell.set_xlabel("taps inside: " + ", ".join(inside), fontsize=8)
    cell.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    # Below the picture: taps reach into its corners.
    cell.legend(
      fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3
    )
  return figure


def plot_images(images: Mapping[str, Any], *, columns: int = 4) -> "Figure":
  """Images `[h, w, 3]` side by side, by their titles."""
  columns = min(columns, len(images))
  rows = -(-len(images) // columns)
  figure, axes = _grid(rows, columns, width=2.6, height=2.8)
  for cell in axes.flat[len(images) :]:
    cell.set_visible(False)
  for cell, (title, image) in zip(axes.flat, images.items(), strict=False):
    cell.imshow(image)
    cell.set_title(title, fontsize=9)
  return figure


def plot_boxes(
  image: Any, boxes: Mapping[str, Any], *, columns: int = 3
) -> "Figure":
  """Sets of boxes over one image, side by side, by their titles.

  Args:
    image: `[h, w, 3]`.
    boxes: `[n, 4]` each, x0, y0, x1, y1 as parts of the image; they may reach
      over its edges.
    columns: pictures in a row.
  """
  pixels = np.asarray(as_batch(image))[0]
  height, width = pixels.shape[:2]
  columns = min(columns, len(boxes))
  rows = -(-len(boxes) // columns)
  figure, axes = _grid(rows, columns, width=2.8, height=3.0)
  for cell in axes.flat[len(boxes) :]:
    cell.set_visible(False)
  for cell, (title, some) in zip(axes.flat, boxes.items(), strict=False):
    cell.imshow(pixels)
    for number, (x0, y0, x1, y1) in enumerate(np.asarray(some).tolist()):
      # A closed line around the box; pixel 0's middle is at 0, so its edge is
      # at -0.5.
      x, y = (
        np.multiply(places, side) - 0.5
        for places, side in (
          ((x0, x1, x1, x0, x0), width),
          ((y0, y0, y1, y1, y0), height),
        )
      )
      cell.plot(x, y, color=_COLOURS[number % len(_COLOURS)], lw=1.4)
    cell.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    cell.set_title(title, fontsize=9)
    cell.set_xlabel(f"{len(some)} boxes", fontsize=8)
  return figure


def plot_features(
  features: Mapping[str, np.ndarray],
  image: Any,
  *,
  channels: int = 5,
) -> "Figure":
  """The channels of each stage that vary most over the image.

  Args:
    features: from `feature_maps`.
    image: that they are of.
    channels: to show of each stage.
  """
  figure, axes = _grid(len(features), channels + 1, width=1.7, height=1.8)
  for cells, (stage, output) in zip(axes, features.items(), strict=True):
    h, w, c = output.shape
    cells[0].imshow(as_batch(image)[0])
    # The image first, then its channels.
    cells[0].set_ylabel(f"{stage}\n{h} x {w} x {c}", fontsize=9)
    # The strongest channels by deviation: dead ones are constant.
    strongest = np.argsort(-output.std(axis=(0, 1)), kind="stable")
    for cell, channel in zip(cells[1:], strongest, strict=False):
      cell.imshow(output[..., channel], cmap="viridis")
      cell.set_title(f"channel {channel}", fontsize=8)
  figure.suptitle("The channels of each stage that vary most (bright: high)")
  return figure


def plot_fields(fields: Mapping[str, np.ndarray], *, rows: int = 1) -> "Figure":
  """Receptive fields side by side, as shares of their largest value.

  Args:
    fields: titles to `[h, w]`, from `effective_receptive_field`.
    rows: to set them in.
  """
  from matplotlib import colors

  columns = -(-len(fields) // rows)
  figure, axes = _grid(rows, columns, width=2.6, height=3.3)
  # Three decades: fields fall off fast from the middle.
  scale = colors.LogNorm(1e-3, 1, clip=False)
  for cell, (title, field) in zip(axes.flat, fields.items(), strict=False):
    # Zeros are masked: white, and not a colour of the scale.
    relative = np.ma.masked_equal(field / max(field.max(), 1e-30), 0)
    shown = cell.imshow(relative, norm=scale, cmap="viridis")
    area = contributing_area(field)
    reached = np.mean(field > 0)
    cell.set_title(title, fontsize=9)
    cell.set_xlabel(
      f"reaches {reached:.1%} of the pixels;\n95 % comes from {area:.1%}",
      fontsize=8,
    )
  bar = figure.colorbar(
    shown, ax=axes.ravel().tolist(), shrink=0.8, extend="min"
  )
  bar.set_label("gradient / its largest (white: none)", fontsize=8)
  bar.ax.tick_params(labelsize=8)
  return figure


def plot_classes(
  image: Any,
  probabilities: np.ndarray,
  labels: Sequence[str] | None = None,
  *,
  top: int = 5,
) -> "Figure":
  """An image beside its likeliest classes.

  Args:
    image: `[h, w, 3]`.
    probabilities: `[num_classes]`.
    labels: the classes' names; None shows their numbers.
    top: how many.
  """
  # Stable, so that equal classes come in the order of their numbers.
  order = np.argsort(-probabilities, kind="stable")[:top]
  names = [str(labels[i]) if labels else f"class {i}" for i in order]
  figure, axes = _grid(1, 2, width=3.6, height=2.8)
  picture, bars = axes[0]
  picture.imshow(as_batch(image)[0])
  shares = probabilities[order]
  # By place: two classes may have the same name, as ImageNet's cranes.
  bars.barh(range(len(names)), shares, color="#0072b2")
  # Up to the longest bar: those of a thousand even classes are 0.1 %.
  most = max(float(shares[0]), 1e-6)
  for number, share in enumerate(shares):
    bars.text(share + 0.02 * most, number, f"{share:.1%}", va="center")
  bars.invert_yaxis()
  bars.set(xlim=(0, 1.3 * most), xlabel="probability", xticks=[0, most])
  bars.set_xticklabels(["0", f"{most:.1%}"])
  bars.set_yticks(range(len(names)), [_cut(name) for name in names])
  return figure


def _cut(name: str, longest: int = 30) -> str:
  return name if len(name) <= longest else name[: longest - 1] + "…"


def _grid(rows: int, columns: int, *, width: float, height: float) -> Any:
  """A figure and its `[rows, columns]` axes without ticks; inches of each."""
  # Not pyplot's: that keeps every figure, and a notebook would show it twice.
  from matplotlib.figure import Figure

  figure = Figure((width * columns + 0.8, height * rows), layout="constrained")
  axes: Any = figure.subplots(rows, columns, squeeze=False)
  for cell in axes.flat:
    _bare(cell)
  return figure, axes


def _bare(cell: "Axes") -> None:
  cell.set(xticks=[], yticks=[])
