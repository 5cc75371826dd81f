"""SIGTERM and Ctrl-C as a request to save and stop after the current step."""

from collections.abc import Callable
import os
import signal
import types
from typing import Any


class Stopped(Exception):  # noqa: N818, it is no error
  """A signal ended the run before its last step; it is saved.

  Attributes:
    exit_code: 128 plus the signal's number, as shells report it: whoever
      started the run must be able to tell it from one that is done.
  """

  def __init__(self, received: signal.Signals | None, step: int, steps: int):
    received = received or signal.SIGTERM  # another process's signal
    super().__init__(
      f"stopped by {received.name} at step {step} of {steps}, which is saved; "
      "run the same command again to continue"
    )
    self.exit_code = 128 + received


class StopSignals:
  """While entered, a first signal is noted; a second Ctrl-C interrupts.

  Attributes:
    received: the signal, or None.
  """

  def __init__(self, notify: Callable[[str], None], *, alone: bool = True):
    """Takes what to do with a signal.

    Args:
      notify: called with its name when one comes.
      alone: without it SIGTERM is left to JAX's runtime, which has all
        processes agree on a step to stop after, and Ctrl-C becomes a SIGTERM.
    """
    self.received: signal.Signals | None = None
    self._notify, self._alone = notify, alone

  def __enter__(self) -> "StopSignals":
    """Installs the handlers; call from the main thread."""
    signals = [signal.SIGINT, *[signal.SIGTERM] * self._alone]
    self._before = {s: signal.signal(s, self._handle) for s in signals}
    return self

  def __exit__(self, *unused_error: Any) -> None:
    """Puts the handlers back that were there before."""
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if self.received and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.received = signal.Signals(number)
    self._notify(self.received.name)
    if not self._alone:
      os.kill(os.getpid(), signal.SIGTERM)
