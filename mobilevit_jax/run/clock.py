"""Where a run's time goes: steps, data, logging, and what was lost."""

from collections.abc import Iterator
import contextlib
import time
from typing import Any

from etils import epath
import jax


class Clock:
  """Times a run from one log line to the next, and its goodput in all."""

  def __init__(
    self,
    first_step: int,
    num_steps: int,
    began: float,
    useful_seconds: float = 0.0,
    peak_flops: float | None = None,
  ):
    """Starts the first window.

    Args:
      first_step: number of updates done before this start.
      num_steps: of the whole run.
      began: when the run was first started, in seconds since 1970.
      useful_seconds: that the steps before this start took.
      peak_flops: of all devices together, a second; None where not known.
    """
    self._num_steps, self._peak_flops = num_steps, peak_flops
    self._began, self._useful = began, useful_seconds
    self._start_window(first_step)

  def _start_window(self, step: int) -> None:
    self._step, self._time = step, time.monotonic()
    self._images, self._flops = 0, 0.0
    self._wait = self._logging = self._paused = 0.0

  def add(self, images: int, wait: float, flops: float = 0.0) -> None:
    """Counts a step: images, seconds waited for data, operations."""
    self._images += images
    self._flops += flops
    self._wait += wait

  @contextlib.contextmanager
  def logging(self) -> Iterator[None]:
    """A context whose time is that of logging."""
    begin = time.monotonic()
    yield
    self._logging += time.monotonic() - begin

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """A context whose time does not count, for evaluation and saving."""
    begin = time.monotonic()
    yield
    self._paused += time.monotonic() - begin

  def _seconds(self) -> tuple[float, float]:
    """Of the window: all that counts, and those of its steps alone."""
    # 1e-9, as a window of no time would divide by zero.
    seconds = max(time.monotonic() - self._time - self._paused, 1e-9)
    return seconds, max(seconds - self._wait - self._logging, 0.0)

  @property
  def useful_seconds(self) -> float:
    """Time that the run's steps took, as far as they were kept."""
    return self._useful + self._seconds()[1]

  def goodput(self) -> float:
    """Useful time as a part of all since the run was first started."""
    # All since the first start: also waiting in a queue, and steps that were
    # lost.
    return self.useful_seconds / max(time.time() - self._began, 1e-9)

  def summary(self) -> str:
    """A line on the goodput."""
    return (
      f"goodput: {self.goodput():.2f}, {self.useful_seconds:.0f} s of steps in "
      f"{time.time() - self._began:.0f} s since the run was first started"
    )

  def read(self, step: int) -> tuple[dict[str, float], float]:
    """Speed since the last read, and the seconds left at that speed."""
    seconds, step_seconds = self._seconds()
    steps = max(step - self._step, 1)
    left = (self._num_steps - step) * seconds / steps
    values = {
      "images_per_second": self._images / seconds,
      "steps_per_second": steps / seconds,
      # Of the step that the window ends with; at least one, after a resume.
      "data_wait_seconds": self._wait,
      "step_seconds": step_seconds,
      "logging_seconds": self._logging,
      "goodput": self.goodput(),
    }
    if self._peak_flops:
      # Model FLOPs utilisation: arithmetic done over arithmetic possible (PaLM,
      # arXiv 2204.02311, appendix B).
      values["mfu"] = self._flops / seconds / self._peak_flops
    self._useful = self.useful_seconds
    self._start_window(step)
    return values, left


class Trace:
  """An XProf trace of chosen steps, in `workdir/profile`.

  Args:
    workdir: the run's folder.
    start_step: number of updates done before the first that is traced; None
      for no trace.
    num_steps: how many to trace.
  """

  def __init__(
    self, workdir: epath.PathLike, start_step: int | None, num_steps: int
  ):
    self._folder = epath.Path(workdir) / "profile"
    self._start, self._running = start_step, False
    self._stop = (start_step or 0) + num_steps

  def step(self, step: int) -> jax.profiler.StepTraceAnnotation:
    """A context for the step after `step` updates, named in the trace."""
    if step == self._start:
      # Before the step is dispatched, so that its whole way is in the trace.
      jax.profiler.start_trace(str(self._folder))
      self._running = True
    return jax.profiler.StepTraceAnnotation("train", step_num=step)

  def end(self, done: int, result: Any) -> None:
    """Ends the trace if it is due after `done` updates.

    Args:
      done: number of updates done.
      result: the last step's, which may still run.
    """
    if self._running and done >= self._stop:
      # Steps are asynchronous: the last one must be done to be seen.
      jax.block_until_ready(result)
      self.close()

  def close(self) -> None:
    """Writes the trace as far as it goes, if one is running."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
