"""Signals: what Ctrl-C does to a command, and how a run stops and is saved.

A command ends by Ctrl-C in one line that says what is safe, with exit code 130:
its `main` is decorated with `in_one_line`, and whatever starts the process
calls `begin` first. A run takes SIGTERM and the first Ctrl-C as a request to
save and stop after the current step.
"""

from collections.abc import Callable
import functools
import io
import os
import signal
import sys
import types
from typing import Any, ParamSpec

_P = ParamSpec("_P")

INTERRUPTED = 128 + signal.SIGINT  # the exit code, as shells report it


class _Interrupts:
  """Whether `begin` was called, what a Ctrl-C says, how many there were."""

  begun = False
  said = "interrupted before it began: nothing was changed"
  count = 0


def begin() -> None:
  """Makes this process a command: call it before anything slow is imported.

  From now on a first Ctrl-C interrupts as ever, and where nothing catches that
  ends the process in one line; a second one does so at once.
  """
  _Interrupts.begun = True
  # Only where Python's own handler is in place: nohup and some schedulers have
  # it ignored on purpose.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)  # else it is ignored, by nohup
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      # A file's name may hold any bytes, and is still to be printed.
      stream.reconfigure(errors="backslashreplace")
  # The hooks that were there stay in charge of everything else.
  before = sys.excepthook

  def hook(
    kind: type[BaseException],
    error: BaseException,
    trace: types.TracebackType | None,
  ) -> None:
    if issubclass(kind, KeyboardInterrupt):
      _leave()
    before(kind, error, trace)

  sys.excepthook = hook
  ignored = sys.unraisablehook

  def unraisable(found: Any) -> None:
    # Python goes on after one that hits a destructor or a callback.
    if issubclass(found.exc_type, KeyboardInterrupt):
      _leave()
    ignored(found)

  sys.unraisablehook = unraisable


def _interrupt(number: int, frame: types.FrameType | None) -> None:
  del number
  _Interrupts.count += 1
  # Once more means now. During an import an exception could leave a module half
  # initialised, and later crash the interpreter.
  if _Interrupts.count > 1 or _imports(frame):
    _leave()
  raise KeyboardInterrupt


def _imports(frame: types.FrameType | None) -> bool:
  """Whether a module is being imported: an exception there may crash jaxlib."""
  while frame is not None:
    if "importlib._bootstrap" in frame.f_code.co_filename:
      return True
    frame = frame.f_back
  return False


def _leave() -> None:
  """Ends the process: whatever it writes is whole or as before by design."""
  print(_Interrupts.said, file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(INTERRUPTED)


def in_one_line(
  name: str, safe: str
) -> Callable[[Callable[_P, int]], Callable[_P, int]]:
  """Decorates a command's `main`: signals end it in a line, not a traceback.

  Args:
    name: of the command, which begins the line.
    safe: what a user may rely on afterwards.
  """

  def decorate(main: Callable[_P, int]) -> Callable[_P, int]:
    @functools.wraps(main)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> int:
      _Interrupts.said = f"{name}: interrupted; {safe}"
      try:
        return main(*args, **kwargs)
      except KeyboardInterrupt:
        # Libraries' threads may hold the exit up for minutes, so it is not
        # waited for.
        if _Interrupts.begun:
          _leave()  # now, as threads may be in the midst of something long
        print(_Interrupts.said, file=sys.stderr, flush=True)
        return INTERRUPTED
      except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code

    return run

  return decorate


class Stopped(Exception):  # noqa: N818, it is no error
  """A signal ended the run before its last step; what there was is saved.

  Attributes:
    exit_code: 128 plus the signal's number, as shells report it: whoever
      started the run must be able to tell it from one that is done.
  """

  def __init__(
    self,
    received: signal.Signals | None,
    step: int,
    steps: int,
    *,
    begun: bool = True,
  ):
    received = received or signal.SIGTERM  # another process's signal
    what = f"at step {step} of {steps}, which is saved"
    if not begun:
      what = f"before step {step + 1} of {steps}: nothing is lost"
    super().__init__(
      f"stopped by {received.name} {what}; run the same command again to "
      "continue"
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
    # Several processes leave SIGTERM to JAX, which agrees on one step.
    signals = [signal.SIGINT, *[signal.SIGTERM] * self._alone]
    self._before = {s: signal.signal(s, self._handle) for s in signals}
    return self

  def __exit__(self, *unused_error: Any) -> None:
    """Puts the handlers back that were there before."""
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def before_step(self, step: int, steps: int) -> None:
    """Raises `Stopped` after a signal, where there is nothing to save yet.

    Several processes have to agree first, as they do after a step.
    """
    if self.received and self._alone:
      raise Stopped(self.received, step, steps, begun=False)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    # A user's third Ctrl-C should do what it always does.
    before = self._before[signal.SIGINT]
    if self.received and number == signal.SIGINT:
      if callable(before):
        before(number, frame)  # a third one ends the process
      raise KeyboardInterrupt
    self.received = signal.Signals(number)
    self._notify(self.received.name)
    # JAX's runtime tells the other processes of a SIGTERM, not of a SIGINT.
    if not self._alone:
      os.kill(os.getpid(), signal.SIGTERM)
