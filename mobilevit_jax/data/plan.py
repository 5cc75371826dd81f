"""The batch plan: which examples, at which size, make up training step t.

A plan is a pure function of the seed and the step. It knows nothing of devices
or hosts, so a run may be stopped and resumed on other hardware and still see
the same global batches, and there is no data state to save.

Sizes and batches follow the variable-batch sampler of the MobileViT paper
(section 3.2, "Multi-scale sampler") in the two forms that Apple published; see
`batch_for`. Every step draws one size for all devices.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import math
import operator

import numpy as np

RULES = ("cvnets_v01", "cvnets_v04")

# First words of the spawn keys: one independent stream for each kind of draw.
_SIZE_STREAM = 1
_ORDER_STREAM = 2


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
  size = _at_least(1, "size", size)
  base_size = _at_least(1, "base_size", base_size)
  base_batch = _at_least(1, "base_batch", base_batch)
  groups = _at_least(1, "groups", groups)
  batch_multiple = _at_least(1, "batch_multiple", batch_multiple)
  # As many images as have the pixels of the base batch (paper, 3.2).
  # Rounding to two places first is the published rule: it turns a quotient
  # just under a whole number into that number.
  fit = int(round(base_size**2 * base_batch / size**2, 2))
  if rule == "cvnets_v01":
    per_group = _make_divisible(max(base_batch, fit), groups)
  elif rule == "cvnets_v04":
    per_group = max(1, fit)
  else:
    raise ValueError(f"rule={rule!r} must be one of {', '.join(RULES)}")
  # Both conditions hold at once; rounding up never makes a batch too small.
  multiple = math.lcm(groups, batch_multiple)
  return -(-per_group * groups // multiple) * multiple


def _make_divisible(value: int, divisor: int) -> int:
  """Nearest multiple of `divisor` that keeps 90 % of `value` (MobileNet's)."""
  # MobileNet's rule (its V2's code): never lose more than a tenth.
  nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
  return nearest + divisor if nearest < 0.9 * value else nearest


def _divisors(number: int) -> str:
  """All divisors of a positive number, as they stand in a sentence."""
  low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
  return ", ".join(map(str, sorted({*low, *(number // d for d in low)})))


def _at_least(low: int, field: str, value: int) -> int:
  """Checks an integer; takes numpy's too, but neither booleans nor floats."""
  try:
    number = operator.index(value)
  except TypeError:
    number = None
  if number is None or isinstance(value, bool) or number < low:
    raise ValueError(f"{field}={value!r} must be an integer from {low}")
  return number


def host_slice(batch: int, process_index: int, process_count: int) -> slice:
  """The part of a global batch that one host loads.

  Args:
    batch: global batch.
    process_index: this host, from 0.
    process_count: number of hosts, which must divide the batch.

  Returns:
    A contiguous slice; the slices of all hosts, in order, make up the batch.

  Raises:
    ValueError: if an argument is out of range; names the counts that divide.
  """
  process_count = _at_least(1, "process_count", process_count)
  if not 0 <= process_index < process_count:
    raise ValueError(
      f"process_index={process_index} must be in [0, {process_count})"
    )
  if batch % process_count:
    raise ValueError(
      f"process_count={process_count} must divide the batch of {batch}, as do "
      f"{_divisors(batch)}"
    )
  # Contiguous, so that a batch keeps its order whatever the number of hosts.
  share = batch // process_count
  return slice(process_index * share, (process_index + 1) * share)


@dataclasses.dataclass(frozen=True)
class PlannedStep:
  """One training step's input.

  Attributes:
    epoch: the epoch that the step belongs to, from 0.
    size: side of the square images, in pixels.
    batch: global batch, over all devices and hosts.
    ids: int array [batch], the examples in their global order.
  """

  epoch: int
  size: int
  batch: int
  ids: np.ndarray


class BatchPlan:
  """Size, batch and example ids of every step of a training run.

  An epoch is a permutation of all examples, cut into batches; its last batch
  is filled up from the epoch's start, so that every shape is one of `shapes`.
  Steps of an epoch depend on (seed, epoch) alone: a plan with more epochs or
  steps starts with the very steps of the shorter one.

  Attributes:
    num_examples: number of examples in an epoch.
    num_steps: number of steps of the whole run.
    num_epochs: number of epochs begun, the last one perhaps cut short.
    epoch_starts: first step of each epoch, int64 [num_epochs].
    shapes: every (size, global batch) that can occur, by size.
  """

  def __init__(
    self,
    num_examples: int,
    *,
    seed: int,
    sizes: Sequence[int],
    base_size: int,
    base_batch: int,
    groups: int = 1,
    rule: str = "cvnets_v01",
    batch_multiple: int = 1,
    num_epochs: int | None = None,
    num_steps: int | None = None,
  ):
    """Draws the sizes; the examples' order is drawn when it is asked for.

    Args:
      num_examples: number of training examples.
      seed: any integer from 0.
      sizes: image sides in pixels, drawn evenly; one makes a fixed-size run.
      base_size: see `batch_for`, as for the next four.
      base_batch: images per group at `base_size`.
      groups: number of groups in a global batch.
      rule: one of `RULES`.
      batch_multiple: global batches are rounded up to a multiple of this.
      num_epochs: length of the run in epochs, or
      num_steps: its length in steps; exactly one of the two.
    """
    self.num_examples = _at_least(1, "num_examples", num_examples)
    self._seed = _at_least(0, "seed", seed)
    sizes = [_at_least(1, "sizes", size) for size in sizes]
    if not sizes or len(set(sizes)) != len(sizes):
      raise ValueError(f"sizes={sizes} must hold one or more, none twice")
    lengths = {"num_epochs": num_epochs, "num_steps": num_steps}
    given = {name: n for name, n in lengths.items() if n is not None}
    if len(given) != 1:
      raise ValueError(
        f"num_epochs={num_epochs}, num_steps={num_steps} must be one number "
        "and one None"
      )
    # Every (size, batch) is compiled before the first step, so the table is
    # made here, not step by step.
    how = {"base_size": base_size, "base_batch": base_batch, "groups": groups}
    batch_at = functools.partial(
      batch_for, rule=rule, batch_multiple=batch_multiple, **how
    )
    # Sorted, so that the order in which a config lists sizes has no effect.
    self.shapes = [(size, batch_at(size)) for size in sorted(sizes)]
    self._sizes, self._batches = np.array(self.shapes, np.int64).T
    for field, length in given.items():
      _at_least(1, field, length)
    self._choices, self.epoch_starts = self._draw_sizes(num_epochs, num_steps)
    self.num_steps = len(self._choices)
    self.num_epochs = len(self.epoch_starts)

  def _draw_sizes(
    self, num_epochs: int | None, num_steps: int | None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Row of the size table at each step; first step of each epoch."""
    # No epoch has more steps than one drawn all at the smallest batch. The
    # number of draws may not depend on the draws: that keeps them vectorised.
    most = -(-self.num_examples // int(self._batches.min()))
    chunks: list[np.ndarray] = []
    starts: list[int] = []
    total = 0
    while len(starts) != num_epochs and total < (num_steps or math.inf):
      # An epoch's generator is keyed by its number: an earlier epoch's length
      # has no effect on a later one.
      rng = _generator(self._seed, _SIZE_STREAM, len(starts))
      chunk = rng.integers(len(self._sizes), size=most).astype(np.int16)
      # An epoch ends at the first step by which every example has been taken.
      ends = np.cumsum(self._batches[chunk])
      chunk = chunk[: np.searchsorted(ends, self.num_examples) + 1]
      chunks.append(chunk)
      starts.append(total)
      total += len(chunk)
    return np.concatenate(chunks)[:num_steps], np.array(starts, np.int64)

  def __len__(self) -> int:
    """Number of steps."""
    return self.num_steps

  @property
  def shortest_epoch(self) -> int:
    """Steps of the shortest whole epoch, or of a run that is shorter."""
    # The last epoch may be cut short, and doesn't count.
    return int(np.diff(self.epoch_starts).min(initial=self.num_steps))

  def epoch(self, t: int) -> int:
    """Epoch of step `t`, from 0."""
    step = self._check_step(t)
    return int(np.searchsorted(self.epoch_starts, step, side="right")) - 1

  def size(self, t: int) -> int:
    """Image side at step `t`, in pixels."""
    return int(self._sizes[self._choices[self._check_step(t)]])

  def batch(self, t: int) -> int:
    """Global batch at step `t`."""
    return int(self._batches[self._choices[self._check_step(t)]])

  def ids(self, t: int) -> np.ndarray:
    """Example ids of step `t` in their global order, int [batch]."""
    step, epoch = self._check_step(t), self.epoch(t)
    # Its place in the epoch: the batches before it, summed.
    earlier = self._choices[self.epoch_starts[epoch] : step]
    begin = int(self._batches[earlier].sum())
    # Wrapping fills up the epoch's last batch, as often as it takes when the
    # data set is smaller than one batch.
    places = np.arange(begin, begin + self.batch(step)) % self.num_examples
    return _order(self.num_examples, self._seed, epoch)[places]

  def __getitem__(self, t: int) -> PlannedStep:
    """The whole of step `t`; `IndexError` beyond the last step."""
    return PlannedStep(self.epoch(t), self.size(t), self.batch(t), self.ids(t))

  def check_devices(self, num_devices: int) -> None:
    """`ValueError` unless all batches divide evenly over so many devices."""
    num_devices = _at_least(1, "num_devices", num_devices)
    batches = sorted(set(self._batches.tolist()))
    if any(batch % num_devices for batch in batches):
      raise ValueError(
        f"num_devices={num_devices} must divide every batch of the plan, "
        f"{batches}, as do {_divisors(math.gcd(*batches))}; or set "
        f"batch_multiple={num_devices}, which rounds the batches up"
      )

  def _check_step(self, t: int) -> int:
    step = operator.index(t)
    if not 0 <= step < self.num_steps:
      raise IndexError(f"step={step} must be in [0, {self.num_steps})")
    return step


# A prefetching pipeline reads on both sides of an epoch's end, never more.
@functools.lru_cache(maxsize=2)
def _order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
  """The permutation of one epoch: 30 ms and 5 MB for ImageNet, so kept."""
  kind = np.int32 if num_examples < 2**31 else np.int64
  # 32 bits are enough up to two thousand million examples, and shuffle faster.
  order = np.arange(num_examples, dtype=kind)
  _generator(seed, _ORDER_STREAM, epoch).shuffle(order)
  order.flags.writeable = False
  return order


def _generator(seed: int, stream: int, epoch: int) -> np.random.Generator:
  # spawn_key makes streams independent, which seed + epoch would not.
  key = np.random.SeedSequence(seed, spawn_key=(stream, epoch))
  return np.random.Generator(np.random.PCG64(key))
