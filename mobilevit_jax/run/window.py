"""A train step's metrics, gathered until they are logged."""

import math

import jax


class NonFiniteError(FloatingPointError):
  """The loss or the gradient's norm is not a finite number."""


class Window:
  """Metrics of the steps since the last log line.

  A step's metrics are read while the next one runs: every loss is looked at,
  and the device does not wait for it.
  """

  def __init__(self, sums: dict[str, float] | None = None, count: int = 0):
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
    (step, arrays), self._pending = self._pending, None
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
