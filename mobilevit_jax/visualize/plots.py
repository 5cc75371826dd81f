"""Figures of attention maps, features, receptive fields and answers.

Colour maps are matplotlib's viridis, which the colour-blind can read too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TYPE_CHECKING

import numpy as np

from mobilevit_jax.visualize import attention as attention_lib
from mobilevit_jax.visualize import features as features_lib

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure


def plot_attention(
  maps: Mapping[str, attention_lib.AttentionMaps],
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
  grey = np.asarray(features_lib.as_batch(image))[0].mean(axis=-1)
  heads = next(iter(maps.values())).weights.shape[2]
  figure, axes = _grid(len(maps), heads, width=2.1, height=2.2)
  for cells, (stage, found) in zip(axes, maps.items(), strict=True):
    h, w = found.grid
    looks = found.of_pixel(row, column)[layer]
    # A patch has one pixel that is not zero.
    looks = looks.reshape(heads, h // 2, 2, w // 2, 2).sum(axis=(2, 4))
    relative = looks * (h * w // 4)
    for head, cell in enumerate(cells):
      cell.imshow(grey, cmap="gray", vmin=-0.3, vmax=1.3)
      shown = cell.imshow(
        relative[head],
        cmap="viridis",
        alpha=0.65,
        vmin=0,
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


def plot_features(
  features: Mapping[str, np.ndarray], image: Any, *, channels: int = 5
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
    cells[0].imshow(features_lib.as_batch(image)[0])
    cells[0].set_ylabel(f"{stage}\n{h} x {w} x {c}", fontsize=9)
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
  scale = colors.LogNorm(1e-3, 1, clip=False)
  for cell, (title, field) in zip(axes.flat, fields.items(), strict=False):
    # Zeros are masked: white, and not a colour of the scale.
    relative = np.ma.masked_equal(field / max(field.max(), 1e-30), 0)
    shown = cell.imshow(relative, norm=scale, cmap="viridis")
    area = features_lib.contributing_area(field)
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
  order = np.argsort(-probabilities, kind="stable")[:top]
  names = [str(labels[i]) if labels else f"class {i}" for i in order]
  figure, axes = _grid(1, 2, width=3.6, height=2.8)
  picture, bars = axes[0]
  picture.imshow(features_lib.as_batch(image)[0])
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
