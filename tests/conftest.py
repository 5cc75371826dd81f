"""What every test shares: eight CPU devices, one compile cache, the command.

JAX reads the environment when it is imported, so this is set here, before any
test module is. Commands started by tests inherit it, the cache with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

from absl import flags
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
_DEVICE_COUNT = "--xla_force_host_platform_device_count="


def _xla_flags(devices: int) -> str:
  """Returns XLA_FLAGS of the environment with this many CPU devices."""
  kept = os.environ.get("XLA_FLAGS", "").split()
  kept = [flag for flag in kept if not flag.startswith(_DEVICE_COUNT)]
  return " ".join([*kept, f"{_DEVICE_COUNT}{devices}"])


os.environ["XLA_FLAGS"] = _xla_flags(devices=8)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of the time that tests take: a train step needs 20 to 30 s
# on two cores, and read back from this folder under one.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A shell that starts this in the background has Ctrl-C ignored, and commands
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Grain reads absl flags, which only `app.run` would parse.
flags.FLAGS.mark_as_parsed()


class MainProcess:
  """`python -m MODULE ARGS`, running in a process group of its own.

  Output goes to files: a worker that outlives its parent would keep a pipe
  open, and reading from that would hang the test.

  Attributes:
    popen: The process.
  """

  def __init__(
    self,
    args: Sequence[str],
    log_dir: pathlib.Path,
    devices: int = 1,
    env: Mapping[str, str] | None = None,
    module: str = "mobilevit_jax.main",
  ):
    self._command = [sys.executable, "-m", module, *args]
    self._stdout = log_dir / "stdout.txt"
    self._stderr = log_dir / "stderr.txt"
    with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
      self.popen = subprocess.Popen(
        self._command,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": _xla_flags(devices), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
      )

  @property
  def stdout(self) -> str:
    """What it has written to standard output so far."""
    return self._stdout.read_text(errors="replace")

  @property
  def stderr(self) -> str:
    """What it has written to standard error so far, the log among it."""
    return self._stderr.read_text(errors="replace")

  def wait_until(
    self, condition: Callable[[], object], what: str, timeout: float = 300
  ) -> None:
    """Waits until `condition()` is true; fails when it ends before that."""
    deadline = time.monotonic() + timeout
    while not condition():
      if self.popen.poll() is not None:
        if condition():  # it may have come true with the last thing it did
          return
        pytest.fail(self.report(f"ended before {what}"))
      if time.monotonic() > deadline:
        pytest.fail(self.report(f"no {what} in {timeout} s"))
      time.sleep(0.05)

  def wait_for_output(self, text: str, timeout: float = 300) -> None:
    """Waits until it has written `text` to either stream."""
    self.wait_until(
      lambda: text in self.stdout or text in self.stderr, repr(text), timeout
    )

  def finish(
    self, timeout: float = 300, expect: int | None = 0
  ) -> subprocess.CompletedProcess[str]:
    """Waits for the end and fails unless it exits with `expect`.

    Args:
      timeout: Seconds to wait.
      expect: The exit status to demand, -N for signal N; None for any.

    Returns:
      The finished command with its output as text.
    """
    try:
      status = self.popen.wait(timeout)
    except subprocess.TimeoutExpired:
      self.kill()
      pytest.fail(self.report(f"still running after {timeout} s"))
    if expect is not None and status != expect:
      pytest.fail(self.report(f"exit status {status}, expected {expect}"))
    return subprocess.CompletedProcess(
      self._command, status, self.stdout, self.stderr
    )

  def kill(self) -> None:
    """Kills the process and whatever it left in its group."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.popen.pid, signal.SIGKILL)
    self.popen.wait()

  def report(self, problem: str) -> str:
    """Returns the problem, the command and the end of both streams."""
    parts = [problem, f"command: {shlex.join(self._command)}"]
    for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
      lines = text.splitlines()
      parts += [f"--- {name}, last of {len(lines)} lines", *lines[-60:]]
    return "\n".join(parts)


StartMain = Callable[..., MainProcess]
StartProcesses = Callable[..., list[MainProcess]]
RunMain = Callable[..., subprocess.CompletedProcess[str]]


def _starter(
  tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StartMain]:
  started: list[MainProcess] = []

  def start(
    args: Sequence[str],
    devices: int = 1,
    env: Mapping[str, str] | None = None,
    module: str = "mobilevit_jax.main",
  ) -> MainProcess:
    log_dir = tmp_path_factory.mktemp("main")
    started.append(MainProcess(args, log_dir, devices, env, module))
    return started[-1]

  yield start
  for process in started:
    process.kill()


@pytest.fixture
def start_main(
  tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StartMain]:
  """`start_main(args, devices, env, module)`: the command, left running."""
  yield from _starter(tmp_path_factory)


@pytest.fixture(scope="module")
def start_main_module(
  tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StartMain]:
  """`start_main`, for what the tests of a module share."""
  yield from _starter(tmp_path_factory)


@pytest.fixture
def run_main(start_main: StartMain) -> RunMain:
  """`run_main(args, devices, env, timeout, expect)`: the command, to its end.

  Fails with the command and its output unless it exits with `expect` (0).
  """

  def run(
    args: Sequence[str],
    devices: int = 1,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    expect: int | None = 0,
  ) -> subprocess.CompletedProcess[str]:
    return start_main(args, devices, env).finish(timeout, expect)

  return run


@pytest.fixture
def start_processes(start_main: StartMain) -> StartProcesses:
  """`start_processes(count, args, devices=1)`: one run of several processes."""

  def start(
    count: int,
    args: Sequence[str],
    devices: int = 1,
    module: str = "mobilevit_jax.main",
  ) -> list[MainProcess]:
    with socket.socket() as free:
      free.bind(("localhost", 0))
      port = free.getsockname()[1]
    together = [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    return [
      start_main(
        [*args, *together, f"--process_id={index}"], devices, module=module
      )
      for index in range(count)
    ]

  return start
