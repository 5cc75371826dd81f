"""How far a run is: what its loop carries from step to step beside the state.

All of it goes into each checkpoint, so that a resumed run logs, counts and
stops as the uninterrupted one would.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax

from mobilevit_jax import config


class NonFiniteError(config.UserError, FloatingPointError):
  """The loss or the gradient's norm is not a finite number."""


class Window:
  """Metrics of the steps since the last log line.

  A step's metrics are read while the next one runs: every loss is looked at,
  and the device does not wait for it.
  """

  def __init__(self, sums: Mapping[str, float] | None = None, count: int = 0):
    self.sums, self.count = dict(sums or {}), count
    self._pending: tuple[int, dict[str, jax.Array]] | None = None

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Reads the step before, and keeps this one, which may still run."""
    self.flush()
    self._pending = (step, metrics)

  def flush(self) -> None:
    """Waits for the newest step; raises if it is not finite."""
    if self._pending is None:
      return
    # Taken out first: an error must not leave it to be read twice.
    (step, arrays), self._pending = self._pending, None
    # float() waits for the device; by now the next step is queued.
    metrics = {name: float(value) for name, value in arrays.items()}
    for name in ("loss", "grad_norm"):
      if not math.isfinite(metrics[name]):
        raise NonFiniteError(f"{name} is {metrics[name]} at step {step}")
    for name, value in metrics.items():
      self.sums[name] = self.sums.get(name, 0.0) + value
    self.count += 1

  def take(self) -> dict[str, float]:
    """Means over the window, which starts anew."""
    self.flush()
    means = {name: total / self.count for name, total in self.sums.items()}
    self.sums, self.count = {}, 0
    return means


def rank(value: float, loss: float, step: int) -> tuple[float, float, int]:
  """What orders evaluations: the metric, then the loss, then the later step.

  Where images are few, many evaluations have the same share of right answers,
  and the first of them is that of the net that learnt least.
  """
  # Tuples are compared from the left; less loss is better.
  return value, -loss, step


@dataclasses.dataclass
class Best:
  """The best evaluation so far, and when to stop waiting for a better one.

  Attributes:
    step: of the best evaluation; see `rank`. -1 before any.
    value: its metric, of which more is better; None before any.
    waited: evaluations since one with a higher metric than all before it.
    loss: of the best evaluation; 0 where its task has none.
  """

  step: int = -1
  value: float | None = None
  waited: int = 0
  loss: float = 0.0

  def add(self, step: int, value: float, loss: float = 0.0) -> None:
    """Takes the next evaluation."""
    # Patience asks for progress; the better of two equals is a matter of taste.
    # Equals can win below, but waiting for a better one goes on.
    higher = self.value is None or value > self.value
    self.waited = 0 if higher else self.waited + 1
    # The first evaluation is better than none.
    own = -math.inf if self.value is None else self.value
    if rank(value, loss, step) > rank(own, self.loss, self.step):
      self.step, self.value, self.loss = step, value, loss

  def is_over(self, patience: int | None) -> bool:
    """Whether `patience` evaluations brought nothing better; None: never."""
    return patience is not None and self.waited >= patience


@dataclasses.dataclass
class Progress:
  """What a run carries on the host.

  Attributes:
    step: number of updates done.
    window: metrics since the last log line.
    best: of the evaluations.
    useful_seconds: that the steps took, as far as they were kept.
    bad_images: how often an image was replaced.
  """

  step: int = 0
  window: Window = dataclasses.field(default_factory=Window)
  best: Best = dataclasses.field(default_factory=Best)
  useful_seconds: float = 0.0
  bad_images: int = 0

  def to_json(self) -> dict[str, Any]:
    """What a checkpoint keeps; the newest step's metrics must be flushed."""
    # By name, and not `asdict`, which would copy the window's pending arrays.
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return fields | {
      "window": {"sums": self.window.sums, "count": self.window.count},
      "best": dataclasses.asdict(self.best),
    }

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> "Progress":
    """Inverse of `to_json`."""
    window, best = Window(**fields["window"]), Best(**fields["best"])
    return cls(**{**fields, "window": window, "best": best})
