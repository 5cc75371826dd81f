"""Who is taken for whom: a matrix, and the commonest mistakes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobilevit_jax.report import statistics

_MATRIX = 26  # rows that fit on a screen
_PAIRS = 12


def view(
  counts: np.ndarray, names: Sequence[str], unit: str = "images"
) -> dict[str, Any]:
  """What `parts.html.j2` shows of a confusion matrix.

  Args:
    counts: int `[k, k]`: rows are true classes, columns predicted ones.
    names: of the classes.
    unit: what is counted.
  """
  shown, chosen = statistics.gathered(counts, _MATRIX)
  titles = [names[label] for label in chosen]
  about = (
    f"Rows: what the {unit} are; columns: what they were said to be; "
    "coloured by their share of the row."
  )
  if left := len(counts) - len(chosen):
    titles.append(f"{left} others")
    about += (
      f" The {len(chosen)} classes with the most mistakes; the last row and "
      f"column are the other {left} together."
    )
  # A class without images has a row of zeros, not of 0 / 0.
  shares = shown / np.maximum(shown.sum(axis=1, keepdims=True), 1)
  support = counts.sum(axis=1)
  rows = [
    [
      {
        "count": int(count),
        # Images are counted; of millions of pixels, shares say more.
        "shown": f"{count:,}" if unit == "images" else f"{share:.1%}",
        "share": float(share),
        "kind": "right" if true == said else "wrong",
      }
      for said, (count, share) in enumerate(
        zip(shown[true], shares[true], strict=True)
      )
    ]
    for true in range(len(titles))
  ]
  pairs = [
    [names[true], names[said], f"{count:,}", f"{count / support[true]:.1%}"]
    for true, said, count in statistics.most_confused(counts, _PAIRS)
  ]
  return {
    "about": about,
    "titles": titles,
    "rows": rows,
    "pairs": pairs,
    "unit": unit,
  }
