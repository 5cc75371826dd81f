"""One run a folder: a second start is refused while the first is at work.

`WORKDIR/running.json` names who is at work. Within one host the process itself
tells whether it still is; of another host its sign of life does, which the file
gets every few seconds. Clocks are not compared: the file changes or it doesn't.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
from typing import Any
import uuid

from etils import epath

from mobilevit_jax import config
from mobilevit_jax import files

FILE = "running.json"
BEAT_SECONDS = 10.0
# Several signs of life: one may come late where storage or host is busy.
WAIT_SECONDS = 60.0
_SETTLE_SECONDS = 1.0  # two that start at once see who wrote last
_TYPES = {"host": str, "process": int, "time": int | float}
_PROC = pathlib.Path("/proc")


class Lock:
  """Holds a run's folder from `take` to `release`."""

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    say: Callable[[str], None] = print,
    beat: float = BEAT_SECONDS,
    wait: float = WAIT_SECONDS,
  ):
    """The folder exists.

    Args:
      workdir: local or remote.
      say: takes a line where somebody has to wait.
      beat: seconds between signs of life.
      wait: seconds that another host's sign of life is waited for.
    """
    self._workdir, self._say = epath.Path(workdir), say
    self._path = self._workdir / FILE
    self._beat, self._wait = beat, wait
    # What tells this run from any other, also from a later process that got the
    # same number.
    self._own = {
      "host": _host(),
      "process": os.getpid(),
      "process_start": _process_start(os.getpid()),
      "token": uuid.uuid4().hex,
    }
    self._over = threading.Event()
    self._thread: threading.Thread | None = None

  def take(self) -> None:
    """Takes the folder, and shows signs of life from now on.

    Raises:
      config.ConfigError: if another process is at work in it.
    """
    deadline = None
    # --- Look and write, undisturbed: see `_undisturbed`.
    while True:
      with _undisturbed(self._workdir):
        other = self._read()
        if not _may_live(other):
          self._write()
          break
      # --- Of this host: it is known to live.
      if other["host"] == self._own["host"]:
        raise config.ConfigError(self._refusal(other))
      # --- Of another host: whether its file still changes is all that shows.
      if deadline is None:
        deadline, first = time.monotonic() + self._wait, other
        self._say(
          f"waiting {self._wait:.0f} s at most: {self._who(other)} may have "
          "been killed"
        )
      if other != first:
        raise config.ConfigError(self._refusal(other))
      if time.monotonic() > deadline:
        self._path.unlink(missing_ok=True)
        continue
      # No longer than a sign of life takes.
      time.sleep(min(1, self._beat))
    # --- Buckets have no locks: two that wrote at the same time find out now.
    if not files.is_local(self._workdir):
      time.sleep(_SETTLE_SECONDS)
      if (other := self._read()).get("token") != self._own["token"]:
        raise config.ConfigError(self._refusal(other))
    self._thread = threading.Thread(target=self._live, daemon=True)
    self._thread.start()

  def release(self) -> None:
    """Gives the folder free; whoever comes next need not wait."""
    if self._thread is not None:
      self._over.set()
      self._thread.join()
      if self._read().get("token") == self._own["token"]:
        self._path.unlink(missing_ok=True)

  def _live(self) -> None:
    # `wait` returns early when the folder is given free.
    while not self._over.wait(self._beat):
      try:
        other = self._read()
        if other.get("token", self._own["token"]) != self._own["token"]:
          # This process was stopped for a minute, and given up for dead.
          print(f"error: {self._refusal(other)}", file=sys.stderr, flush=True)
          os._exit(1)
        self._write()
      except OSError:
        continue  # storage that fails ends the run at its next save

  def _write(self) -> None:
    content = {**self._own, "time": time.time()}
    files.write_text(self._path, json.dumps(content) + "\n")

  def _read(self) -> dict[str, Any]:
    """Who holds the folder; empty for nobody, and for half a file."""
    try:
      content = json.loads(self._path.read_bytes())
      sound = all(isinstance(content[name], t) for name, t in _TYPES.items())
      return content if sound else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      return {}

  def _who(self, other: Mapping[str, Any]) -> str:
    # The file may come from anywhere: a time of 10^30 would raise.
    at = min(max(other["time"], 0), 2**32)  # whatever the file says
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    host = str(other["host"]).partition(" ")[0]
    return (
      f"process {other['process']} on {host}, whose last sign of life was at "
      f"{when},"
    )

  def _refusal(self, other: Mapping[str, Any]) -> str:
    return (
      f"{self._workdir} is in use by {self._who(other)} and two runs in one "
      "folder would spoil each other: stop that one, or use another --workdir"
    )


def _host() -> str:
  """This machine since it was started, which a name alone would not tell."""
  boot = _PROC / "sys/kernel/random/boot_id"
  name = socket.gethostname()
  return f"{name} {boot.read_text().strip()}" if boot.exists() else name


def _process_start(pid: int) -> str:
  """What tells a process from a later one of the same number, where it can."""
  try:
    stat = (_PROC / str(pid) / "stat").read_text()
  except OSError:
    return ""
  # The command may hold spaces and brackets; fields follow the last one.
  state, *fields = stat.rpartition(")")[2].split()
  return "" if state == "Z" else fields[18]  # proc(5): field 22, starttime


def _may_live(other: Mapping[str, Any]) -> bool:
  """Whether a process that holds a folder may be alive; of this host, is."""
  if not other or other["host"] != _host():
    return bool(other)
  if (_PROC / "self").exists():
    start = _process_start(int(other["process"]))
    return bool(start) and start == other.get("process_start")
  # Signal 0 only asks whether the process exists (macOS has no /proc).
  try:
    os.kill(int(other["process"]), 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass  # another user's
  return True


@contextlib.contextmanager
def _undisturbed(workdir: epath.Path) -> Iterator[None]:
  """Nobody else looks and writes meanwhile, where files can be locked."""
  if not files.is_local(workdir):
    yield
    return
  # Of the folder itself: it is there, and no other file has to be.
  folder = os.open(workdir, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # some network storage can't
      fcntl.flock(folder, fcntl.LOCK_EX)
    yield
  finally:
    os.close(folder)
