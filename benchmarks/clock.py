"""Seconds by the clock and of CPUs, and images per each of them."""

from collections.abc import Mapping, Sequence
import dataclasses
import multiprocessing
import os
import pathlib
import statistics
import time


@dataclasses.dataclass(frozen=True)
class Rate:
  """How fast images go through.

  Attributes:
    images: so many went through.
    wall: seconds by the clock.
    cpu: seconds of CPUs, of all threads and worker processes.
  """

  images: int
  wall: float
  cpu: float

  @property
  def per_second(self) -> float:
    """Images per second."""
    return self.images / max(self.wall, 1e-9)

  @property
  def per_cpu_second(self) -> float:
    """Images per CPU-second."""
    return self.images / max(self.cpu, 1e-9)


def now() -> tuple[float, float]:
  """The clock, and the CPU time of this process and its living workers."""
  # Workers that have ended are in no count, so rounds must be short enough to
  # keep them alive.
  children = [child.pid for child in multiprocessing.active_children()]
  cpu = time.process_time() + sum(map(_cpu_seconds, filter(None, children)))
  return time.perf_counter(), cpu


def _cpu_seconds(pid: int) -> float:
  """CPU time of a process of Linux, in hundredths of a second."""
  stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
  # proc(5): fields 14 and 15, after the command, which may hold spaces.
  user, system = stat.split()[11:13]
  return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Laps:
  """Time of one thread, by stage; a lap costs a microsecond."""

  def __init__(self):
    self._sums: dict[str, tuple[int, int]] = {}
    self.start()

  def start(self) -> None:
    """The next lap begins here."""
    self._last = time.perf_counter_ns(), time.thread_time_ns()

  def lap(self, stage: str) -> None:
    """What has passed since the last lap belongs to this stage."""
    # CPU time of this thread alone: other stages run beside it.
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    sums = self._sums.get(stage, (0, 0))
    last = self._last
    self._sums[stage] = sums[0] + wall - last[0], sums[1] + cpu - last[1]
    self._last = wall, cpu

  def rates(self, images: int) -> dict[str, Rate]:
    """The rate of each stage by itself."""
    return {
      stage: Rate(images, wall / 1e9, cpu / 1e9)
      for stage, (wall, cpu) in self._sums.items()
    }


def medians(
  rounds: Sequence[Mapping[str, Rate]],
) -> dict[str, dict[str, float]]:
  """Median rates over the rounds of everything that was measured."""
  return {
    name: {
      "images_per_second": statistics.median(
        r[name].per_second for r in rounds
      ),
      "images_per_cpu_second": statistics.median(
        r[name].per_cpu_second for r in rounds
      ),
    }
    for name in rounds[0]
  }


def ratios(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """Our pipeline's images per CPU-second, divided by those of the others.

  Args:
    results: see `medians`; of "mobilevit_jax", of "decode" and
      "mobilevit_jax decode", and maybe of "torchvision".
  """
  speed = {name: row["images_per_cpu_second"] for name, row in results.items()}
  # Alone, decoding may lose time to memory that goes back to the system after
  # every image; the bound is the faster one.
  bounds = {"decode": max(speed["decode"], speed["mobilevit_jax decode"])}
  if "torchvision" in speed:
    bounds["torchvision"] = speed["torchvision"]
  return {
    name: speed["mobilevit_jax"] / bound for name, bound in bounds.items()
  }
