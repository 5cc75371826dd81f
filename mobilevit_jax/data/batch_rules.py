"""The published rules for how many images make up a batch of one size.

The larger the images, the fewer: a step costs about the same memory and time
at any size.
"""

from __future__ import annotations

import math
import operator

RULES = ("cvnets_v01", "cvnets_v04")


def batch_for(
  size: int,
  *,
  base_size: int,
  base_batch: int,
  groups: int = 1,
  rule: str = "cvnets_v01",
  batch_multiple: int = 1,
) -> int:
  """Global batch for images of one size.

  A group (one of the paper's GPUs) holds about as many pixels at any size:
  `fit = base_size**2 * base_batch / size**2` images, which the rules round to

  * `cvnets_v01`: `max(base_batch, fit)` rounded to a multiple of `groups`, so
    that large images keep the base batch (ml-cvnets v0.1,
    data/sampler/utils.py). From 128 at 256 px and 8 groups: 2624, 1792, 1024,
    1024, 1024 images at 160, 192, 256, 288, 320 px.
  * `cvnets_v04`: `max(1, fit)` rounded down (ml-cvnets v0.3 and v0.4, same
    file): 2616, 1816, 1024, 808, 648 images.

  Args:
    size: image side in pixels.
    base_size: the side at which a group's batch is `base_batch`.
    base_batch: images per group at `base_size`.
    groups: number of groups in a global batch.
    rule: one of `RULES`.
    batch_multiple: rounds the global batch up to a multiple of this; it stays
      a multiple of `groups`.

  Returns:
    Number of images over all groups.
  """
  size = at_least(1, "size", size)
  base_size = at_least(1, "base_size", base_size)
  base_batch = at_least(1, "base_batch", base_batch)
  groups = at_least(1, "groups", groups)
  batch_multiple = at_least(1, "batch_multiple", batch_multiple)
  # Rounding to two places first is the published rule: it turns a quotient
  # just under a whole number into that number.
  fit = int(round(base_size**2 * base_batch / size**2, 2))
  if rule == "cvnets_v01":
    per_group = _make_divisible(max(base_batch, fit), groups)
  elif rule == "cvnets_v04":
    per_group = max(1, fit)
  else:
    raise ValueError(f"rule={rule!r} must be one of {', '.join(RULES)}")
  multiple = math.lcm(groups, batch_multiple)
  return -(-per_group * groups // multiple) * multiple


def _make_divisible(value: int, divisor: int) -> int:
  """Nearest multiple of `divisor` that keeps 90 % of `value` (MobileNet's)."""
  nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
  return nearest + divisor if nearest < 0.9 * value else nearest


def divisors(number: int) -> str:
  """All divisors of a positive number, as they stand in a sentence."""
  low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
  return ", ".join(map(str, sorted({*low, *(number // d for d in low)})))


def at_least(low: int, field: str, value: int) -> int:
  """Checks an integer; takes numpy's too, but neither booleans nor floats."""
  try:
    number = operator.index(value)
  except TypeError:
    number = None
  if number is None or isinstance(value, bool) or number < low:
    raise ValueError(f"{field}={value!r} must be an integer from {low}")
  return number
