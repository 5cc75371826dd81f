"""Contestants in alternating rounds, so that a busy machine slows all alike."""

from collections.abc import Callable, Mapping
import dataclasses
import statistics
import time


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds of each round of one contestant, per step.

  Attributes:
    wall: by the clock.
    cpu: of this process, all threads together.
  """

  wall: list[float]
  cpu: list[float]

  @property
  def wall_median(self) -> float:
    """Median over the rounds."""
    return statistics.median(self.wall)

  @property
  def cpu_median(self) -> float:
    """Median over the rounds."""
    return statistics.median(self.cpu)


def alternate(
  run: Mapping[str, Callable[[int], None]], *, rounds: int, steps: int
) -> dict[str, Times]:
  """Times `run[name](steps)` in turn, `rounds` times, in alternating order.

  Args:
    run: makes that many steps and returns when they are done.
    rounds: of all contestants.
    steps: of each in a round.
  """
  times = {name: Times([], []) for name in run}
  order = list(run)
  # Every contestant in each round: drift of the machine meets all of them.
  for _ in range(rounds):
    for name in order:
      wall, cpu = time.perf_counter(), time.process_time()
      run[name](steps)
      times[name].wall.append((time.perf_counter() - wall) / steps)
      times[name].cpu.append((time.process_time() - cpu) / steps)
    order.reverse()  # so that neither gains from being first
  return times
