"""Loading ahead of use, in threads or in Grain's worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import multiprocessing
from multiprocessing import connection
from multiprocessing import resource_tracker
import os
import pathlib
import signal
import threading
from typing import Any
import weakref

from absl import flags
import cloudpickle
import cv2
import grain
import numpy as np

from mobilevit_jax import config
from mobilevit_jax.data import handover
from mobilevit_jax.data import transforms

Batch = dict[str, np.ndarray]

_MAX_THREADS = 16
# What a terminal or a scheduler sends to the whole process group.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WorkerError(config.UserError, RuntimeError):
  """A worker process was killed; what it was to load is lost."""


class BatchIterator(Iterator[Batch]):
  """Iterator of batches; close it, or use it in a `with` statement.

  Loading begins at once, in the background. Closing ends the workers and frees
  the memory they share; it is safe at any time, and more than once.
  """

  def __init__(
    self, dataset: grain.IterDataset, place: handover.Place | None = None
  ):
    # --- Start. Grain begins to load at the first `next`, in a thread of ours.
    """Starts loading; `place` is where workers put batches, and is closed."""
    iterator = iter(dataset)
    # Grain starts its workers at the first `next`. They inherit the blocked
    # signals of this thread, so that a Ctrl-C or SIGTERM to the whole process
    # group never kills one while it starts; see `_start_worker`.
    starter = futures.ThreadPoolExecutor(
      1, "data-start", initializer=_block_signals
    )
    self._first: futures.Future | None = starter.submit(_first, iterator)
    self._iterator, self._place = iterator, place
    self._workers: set[Any] = set()
    starter.shutdown(wait=False)
    # A finalizer, and not `__del__`: it also runs at the interpreter's exit,
    # while modules are still there, and once at the most.
    self._finalizer = weakref.finalize(
      self, _close, self._first, iterator, place
    )

  def __next__(self) -> Batch:
    """The next batch.

    Raises:
      ImageError: if it has an image that can't be used.
      WorkerError: if a worker process was killed.
    """
    if not self._finalizer.alive:
      raise ValueError("The iterator is closed.")
    try:
      if self._first is None:
        return _taken(next(self._iterator))
      # While the workers start, they are collected, so that a worker that was
      # killed can be named.
      while not futures.wait([self._first], timeout=0.1).done:
        self._note_workers()
      self._note_workers()
      batch, self._first = self._first.result(), None
      if self._place is not None:
        self._place.note_semaphores()
    except RuntimeError as error:
      # Grain tells a killed worker by this text alone.
      if "terminated unexpectedly" not in str(error):  # so Grain has it
        raise
      raise WorkerError(self._lost()) from error
    if batch is None:
      raise StopIteration
    return _taken(batch)

  def _note_workers(self) -> None:
    children = multiprocessing.active_children()
    self._workers |= {child for child in children if "grain" in child.name}

  def _lost(self) -> str:
    """Which worker was killed, by what; it may have died before it was seen."""
    dead = [worker for worker in self._workers if worker.exitcode]
    which = ", ".join(f"{worker.pid} ({worker.exitcode})" for worker in dead)
    return (
      "a worker process that loads data was killed: "
      f"{which or 'while it began'}; -9 is often the system's, for want of "
      "memory: lower data.num_workers or data.prefetch_batches"
    )

  def close(self) -> None:
    """Ends loading and its worker processes."""
    self._finalizer()

  def __enter__(self) -> BatchIterator:
    """Itself."""
    return self

  def __exit__(self, *unused_error: Any) -> None:
    """Closes."""
    self.close()


def _block_signals() -> None:
  signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _taken(batch: Batch | handover.Passed) -> Batch:
  return batch.take() if isinstance(batch, handover.Passed) else batch


def _first(iterator: Any) -> Batch | handover.Passed | None:
  # Zeros are the padding: a row that is not filled needs no further work.
  try:
    return next(iterator, None)
  except flags.UnparsedFlagAccessError as error:
    raise ValueError(
      "num_workers must be 0 until absl flags are parsed, which Grain's "
      "workers need: run under `absl.app.run`, or call "
      "`absl.flags.FLAGS.mark_as_parsed()` first"
    ) from error


def _close(
  first: futures.Future, iterator: Any, place: handover.Place | None
) -> None:
  # Grain's iterators are not for two threads at once.
  futures.wait([first])
  iterator.close()
  if place is not None:
    place.close()


class LoadRows:
  """Loads examples in threads into one batch; made anew in each process."""

  def __init__(self, num_threads: int):
    """`num_threads` 1 needs no pool."""
    self._num_threads = num_threads
    self._pool: futures.ThreadPoolExecutor | None = None
    self._lock = threading.Lock()

  def __call__(
    self,
    prepare: Callable[[int], transforms.Arrays],
    ids: np.ndarray,
    spec: transforms.Spec,
    rows: int,
  ) -> Batch:
    """Runs `prepare` on every id.

    Args:
      prepare: takes an example's number; gives arrays of the spec. What it
        leaves out stays 0.
      ids: examples, int [n].
      spec: shapes and types of an example's arrays.
      rows: of the batch, at least n; those past n stay 0.

    Returns:
      For each name of the spec an array [rows, ...].
    """
    batch = {
      name: np.zeros((rows, *shape), dtype)
      for name, (shape, dtype) in spec.items()
    }

    def fill(place: int) -> None:
      for name, value in prepare(int(ids[place])).items():
        batch[name][place] = value

    # OpenCV and NumPy let go of the interpreter lock, so threads do help.
    run = map if self._num_threads == 1 else self._threads().map
    # Consumed for its errors: `map` of an executor raises them in order.
    for _ in run(fill, range(len(ids))):
      pass
    return batch

  def _threads(self) -> futures.ThreadPoolExecutor:
    # Two batches may be in work at once, and both would make a pool.
    with self._lock:
      if self._pool is None:
        self._pool = futures.ThreadPoolExecutor(self._num_threads, "data-image")
      return self._pool

  def __reduce__(self):
    """A copy for a worker process has no threads yet."""
    return LoadRows, (self._num_threads,)


class _Parcel:
  """A function that travels to a worker beside the pipe that starts it.

  That pipe holds 64 KiB. A worker that is killed before it has read more than
  that leaves its parent writing for ever, as Python keeps the pipe's other end
  open; a source of many files is a hundred times that.
  """

  def __init__(self, function: Callable[..., Any]):
    """Takes what is to be called, in this process and in the workers."""
    self._function = function
    self._file: int | None = None

  def __call__(self, *args: Any) -> Any:
    """Calls it."""
    return self._function(*args)

  def __reduce__(self):
    """A worker opens the file, which has no name and ends with this process."""
    # A file in memory, not a pipe: it has no capacity to fill up, and any
    # number of workers can read it.
    if not hasattr(os, "memfd_create"):  # other systems than Linux
      return _Parcel, (self._function,)
    if self._file is None:
      self._file = os.memfd_create("parcel")
      weakref.finalize(self, os.close, self._file)
      with open(self._file, "wb", closefd=False) as file:
        cloudpickle.dump(self._function, file)
    # By the parent's process number: file descriptors aren't inherited by
    # spawned processes.
    return _open_parcel, (f"/proc/{os.getpid()}/fd/{self._file}",)


def _open_parcel(path: str) -> _Parcel:
  return _Parcel(cloudpickle.loads(pathlib.Path(path).read_bytes()))


def iterate(
  elements: range,
  load: Callable[[int, LoadRows], Batch],
  num_workers: int,
  num_threads: int | None,
  prefetch_batches: int,
) -> BatchIterator:
  """Loads elements ahead of their use, in threads or in processes."""
  least = {"num_workers": 0, "num_threads": 1, "prefetch_batches": 1}
  given = (num_workers, num_threads, prefetch_batches)
  for (field, low), value in zip(least.items(), given, strict=True):
    if value is not None and value < low:
      raise ValueError(f"{field}={value} must be at least {low}")
  if num_threads is None:
    # Processes give the parallelism where there are any.
    num_threads = 1 if num_workers else min(os.cpu_count() or 1, _MAX_THREADS)
  load_rows = LoadRows(num_threads)
  dataset = grain.MapDataset.range(elements.start, elements.stop)
  # --- In this process: threads only.
  if not num_workers:
    dataset = dataset.map(lambda element: load(int(element), load_rows))
    # OpenCV's own threads would only get in the way of ours.
    cv2.setNumThreads(0)
    # Two batches are in work at once, so that none of the image threads idles
    # while another finishes a batch. Grain's default would read 500 ahead.
    ahead = grain.ReadOptions(
      num_threads=min(2, prefetch_batches),
      prefetch_buffer_size=prefetch_batches,
    )
    return BatchIterator(dataset.to_iter_dataset(ahead))
  # --- In worker processes: batches travel through shared memory.
  handover.remove_leftovers()
  place = handover.Place()
  folder = place.path
  dataset = dataset.map(
    _Parcel(lambda element: handover.put(folder, load(int(element), load_rows)))
  )
  _start_tracker()
  # Loading ahead is the workers' task here: Grain's own threads would only add
  # a second queue.
  none_ahead = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return BatchIterator(
    dataset.to_iter_dataset(none_ahead).mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=prefetch_batches
      ),
      worker_init_fn=_start_worker,
    ),
    place,
  )


def _start_tracker() -> None:
  """Starts Python's helper that removes what killed processes shared.

  Python would start it at the first spawn, and then unblock signals in the
  thread that did: too early for the workers, see `BatchIterator`. One that is
  killed while it starts leaves its parent writing to it forever. What it
  removes after a run was stopped is nothing to warn of.
  """
  name = "PYTHONWARNINGS"
  before = os.environ.get(name)
  quiet = "ignore:resource_tracker:UserWarning"
  os.environ[name] = f"{before},{quiet}" if before else quiet
  try:
    # Before the workers, so that they inherit the settings and its pipe.
    resource_tracker.ensure_running()
  finally:
    if before is None:
      del os.environ[name]
    else:
      os.environ[name] = before


def _start_worker(unused_index: int, unused_count: int) -> None:
  """Leaves a worker's end to its parent, and only to it.

  A Ctrl-C or a scheduler's SIGTERM reaches the whole process group; the parent
  needs its workers to finish what it is doing before it closes them.
  """
  # The parent decides when to end: see the docstring.
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  cv2.setNumThreads(0)
  parent = multiprocessing.parent_process()
  if parent is not None:
    # A killed parent closes nothing: its workers would wait forever.
    threading.Thread(
      target=_exit_after, args=(parent.sentinel,), daemon=True
    ).start()


# `_exit`, as a worker that waits in native code runs no Python handlers.
def _exit_after(sentinel: int) -> None:
  connection.wait([sentinel])
  os._exit(1)
