"""Joining the other processes of a run, where there are any."""

from collections.abc import Callable, Mapping
from concurrent import futures
import importlib.util
import math
import os
import sys
import traceback
import types
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from mobilevit_jax import config

_T = TypeVar("_T")

# What a process leaves with that JAX's runtime aborts for a lost peer.
LOST_PEER = 134


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Starts JAX's distributed runtime; call it before anything uses a device.

  Args:
    coordinator: `HOST:PORT` of process 0; with it the other two are needed.
      Without any, processes find each other on Cloud TPU, under Slurm and in
      Kubernetes jobs, and a process that is alone stays so.
    num_processes: of the whole run.
    process_id: of this one, from 0.

  Raises:
    config.ConfigError: if only some are given, one is out of range, or the
      others can't be found.
  """
  # --- Alone, or found by the environment.
  given = (coordinator, num_processes, process_id)
  if given == (None, None, None):
    if is_cluster(os.environ):
      _join()
    return
  # --- Named by flags: all three of them.
  if coordinator is None or num_processes is None or process_id is None:
    raise config.ConfigError(
      "--coordinator, --num_processes and --process_id go together; "
      f"got {coordinator}, {num_processes} and {process_id}"
    )
  if not 0 <= process_id < num_processes:
    raise config.ConfigError(
      f"--process_id={process_id} must be from 0 to --num_processes="
      f"{num_processes} less 1"
    )
  _join(coordinator, num_processes, process_id)


def _join(*arguments: Any) -> None:
  try:
    jax.distributed.initialize(*arguments)
  except ValueError as error:
    raise config.ConfigError(
      f"can't join the other processes: {error} Give --coordinator, "
      "--num_processes and --process_id"
    ) from error
  # From here on an exception in one process must not leave the others waiting
  # in a collective.
  sys.excepthook = _leave_at_once


def leave(code: int) -> int:
  """Ends a process of several at once; returns `code` where it is alone.

  Python's own way out waits until all of them leave, but the others may be
  waiting for what this one will never send. Without it they fail too.
  """
  if jax.process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    # `_exit` runs no handlers: JAX's own would wait for the other processes.
    os._exit(code)
  return code


def leave_if_lost(error: BaseException) -> None:
  """Ends a process of several whose device failed, maybe for a peer's end."""
  if jax.process_count() > 1:
    print(
      f"error: process {jax.process_index()} lost another process of the run, "
      f"or its device failed: {str(error).splitlines()[0]}. Start all "
      "processes again: they continue from the newest checkpoint",
      file=sys.stderr,
    )
    leave(LOST_PEER)


def _leave_at_once(
  kind: type[BaseException],
  error: BaseException,
  trace: types.TracebackType | None,
) -> None:
  if isinstance(error, jax.errors.JaxRuntimeError):
    leave_if_lost(error)
  traceback.print_exception(kind, error, trace)
  leave(1)


def gather(rows: np.ndarray) -> np.ndarray:
  """The rows of all processes, which all call it, by process.

  Args:
    rows: `[n, ...]`, where n may differ from process to process.
  """
  if jax.process_count() == 1:
    return rows
  # All have to send as many rows, so the counts go first.
  counts = multihost_utils.process_allgather(np.int32(len(rows))).reshape(-1)
  # As bytes, since JAX would make float32 of float64.
  width = rows.dtype.itemsize * math.prod(rows.shape[1:])
  own = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), width)
  # Padded to the longest, and cut again below.
  padded = np.pad(own, [(0, int(counts.max()) - len(own)), (0, 0)])
  if not padded.size:
    return rows
  every = multihost_utils.process_allgather(padded)
  kept = np.concatenate([e[:n] for e, n in zip(every, counts, strict=True)])
  return np.frombuffer(kept.tobytes(), rows.dtype).reshape(-1, *rows.shape[1:])


def together(work: Callable[[], _T]) -> _T:
  """What `work` returns in this process, once it is done in all of them.

  However long it takes in one, the others don't time out: JAX waits for a
  process 30 s at most, so they meet every second.
  """
  if jax.process_count() == 1:
    return work()
  with futures.ThreadPoolExecutor(1) as pool:
    running, done = pool.submit(work), False
    while not done:
      # Any collective will do: it is the meeting that counts.
      finished = len(futures.wait([running], timeout=1).done)
      done = bool(gather(np.array([finished])).all())
  return running.result()


def from_first(work: Callable[[], str]) -> str:
  """What `work` returns in process 0, in all of them; others don't run it."""
  text = together(work if jax.process_index() == 0 else str)
  if jax.process_count() == 1:
    return text
  # A file's name in it may be no UTF-8.
  data = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
  return gather(data).tobytes().decode(errors="surrogatepass")


def is_cluster(environment: Mapping[str, str]) -> bool:
  """Whether this process may have others beside it, by where it runs.

  JAX's own detection comes after it, and fails where it finds nothing.
  """
  # Schedulers tell their tasks by variables; JAX's detection would read the
  # same ones.
  slurm = int(environment.get("SLURM_NTASKS", "1")) > 1
  # Set in each task of a step, not in a shell that merely holds a job.
  in_step = "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment
  job = "KUBERNETES_SERVICE_HOST" in environment
  indexed = job and "JOB_COMPLETION_INDEX" in environment
  tpu = "tpu" in environment.get("JAX_PLATFORMS", "tpu")
  on_tpu = tpu and importlib.util.find_spec("libtpu") is not None
  return (slurm and in_step) or indexed or on_tpu
