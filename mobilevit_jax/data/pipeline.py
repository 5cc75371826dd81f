"""From a plan and a source to an iterator of batches, with Grain.

One Grain element is one global batch's share for this host, so step t is
element t: starting there costs nothing, and workers share nothing. What comes
out depends on the plan, the seed and the host's place alone, never on the
number of workers or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import dataclasses
import multiprocessing
from multiprocessing import connection
import os
import signal
import threading
from typing import Any
import weakref

from absl import flags
import cv2
import grain
import numpy as np

from mobilevit_jax.data import augment
from mobilevit_jax.data import plan as plan_lib
from mobilevit_jax.data import sources

Batch = dict[str, np.ndarray]

_MAX_THREADS = 16
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What is done to a training image; the defaults are the paper's (4.1).

  Attributes:
    crop_scale: least and most area of the random crop, as parts of the image.
    crop_ratio: least and most width / height of the crop.
    flip: probability of a horizontal flip.
  """

  crop_scale: tuple[float, float] = (0.08, 1.0)
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: float = 0.5

  def __post_init__(self):
    """Checks the ranges."""
    low, high = self.crop_scale
    if not 0 < low <= high <= 1:
      raise ValueError(
        f"crop_scale: {self.crop_scale} must rise and lie in (0, 1]."
      )
    low, high = self.crop_ratio
    if not 0 < low <= high:
      raise ValueError(
        f"crop_ratio: {self.crop_ratio} must rise and be over 0."
      )
    if not 0 <= self.flip <= 1:
      raise ValueError(f"flip: {self.flip} must be a probability.")


class BatchIterator(Iterator[Batch]):
  """Iterator of batches; close it, or use it in a `with` statement.

  Loading begins at once, in the background. Closing ends the workers and frees
  the memory they share; it is safe at any time, and more than once.
  """

  def __init__(self, dataset: grain.IterDataset):
    """Starts loading; see `train_batches` and `eval_batches`."""
    iterator = iter(dataset)
    # Grain starts its workers at the first `next`. They inherit the blocked
    # signals of this thread, so that a Ctrl-C or SIGTERM to the whole process
    # group never kills one while it starts; see `_start_worker`.
    starter = futures.ThreadPoolExecutor(
      1, "data-start", initializer=_block_signals
    )
    self._first = starter.submit(next, iterator, None)
    self._iterator = iterator
    starter.shutdown(wait=False)
    self._finalizer = weakref.finalize(self, _close, self._first, iterator)

  def __next__(self) -> Batch:
    """The next batch; `ImageError` if it has an image that can't be used."""
    if not self._finalizer.alive:
      raise ValueError("The iterator is closed.")
    if self._first is None:
      return next(self._iterator)
    batch, self._first = self._first.result(), None
    if batch is None:
      raise StopIteration
    return batch

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


def _close(first: futures.Future, iterator: Any) -> None:
  # Grain's iterators are not for two threads at once.
  futures.wait([first])
  iterator.close()


def train_batches(
  plan: plan_lib.BatchPlan,
  source: sources.Source,
  *,
  seed: int,
  augmentation: Augmentation,
  start_step: int = 0,
  stop_step: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  num_workers: int = 0,
  num_threads: int | None = None,
  prefetch_batches: int = 2,
) -> BatchIterator:
  """This host's part of the plan's batches, augmented.

  Args:
    plan: which examples make up which step.
    source: the images; as many as the plan was made for.
    seed: of the augmentation.
    augmentation: what is done to the images.
    start_step: the first step to load.
    stop_step: the step to stop before; by default the plan's end.
    process_index: this host, from 0.
    process_count: number of hosts.
    num_workers: processes that load batches; 0 loads in this process.
    num_threads: threads that decode a batch, in each process; by default one
      per worker, or all CPUs when there are no workers.
    prefetch_batches: batches kept ready, by each worker.

  Returns:
    Iterator of {"images": uint8 [b, size, size, 3], "labels": int32 [b]} with
    b the step's batch / process_count.

  Raises:
    ValueError: if the arguments do not fit together.
  """
  if len(source) != plan.num_examples:
    raise ValueError(
      f"source: {source.name} has {len(source)} examples, but the plan is for "
      f"{plan.num_examples}."
    )
  stop = plan.num_steps if stop_step is None else stop_step
  if not 0 <= start_step <= stop <= plan.num_steps:
    raise ValueError(
      f"start_step: {start_step} and stop_step: {stop} must rise and lie in "
      f"[0, {plan.num_steps}]."
    )
  for _, batch in plan.shapes:
    plan_lib.host_slice(batch, process_index, process_count)

  def load(step: int, map_images: MapImages) -> Batch:
    planned = plan[step]
    share = plan.host_slice(planned.batch, process_index, process_count)

    def prepare(index: int) -> tuple[np.ndarray, int]:
      example = source[index]
      rng = augment.example_rng(seed, planned.epoch, index)
      image = augment.random_resized_crop(
        augment.decode(example.image, example.name),
        planned.size,
        rng,
        scale=augmentation.crop_scale,
        ratio=augmentation.crop_ratio,
      )
      image = augment.horizontal_flip(image, rng, augmentation.flip)
      return image, example.label

    return map_images(prepare, planned.ids[share], planned.size)

  return _iterate(
    range(start_step, stop), load, num_workers, num_threads, prefetch_batches
  )


def num_eval_batches(num_examples: int, batch: int) -> int:
  """How many batches of `batch` images hold all examples."""
  return -(-num_examples // batch)


def eval_batches(
  source: sources.Source,
  *,
  size: int,
  batch: int,
  resize_size: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  num_workers: int = 0,
  num_threads: int | None = None,
  prefetch_batches: int = 2,
) -> BatchIterator:
  """Every image of the source once, in order, on all hosts together.

  Every host gets the same number of batches of the same shape, so the last
  ones are padded with black images of label 0 and mask 0.

  Args:
    source: the images.
    size: image side, in pixels.
    batch: global batch.
    resize_size: see `augment.resize_and_center_crop`.
    process_index: this host, from 0.
    process_count: number of hosts.
    num_workers: see `train_batches`.
    num_threads: see `train_batches`.
    prefetch_batches: see `train_batches`.

  Returns:
    Iterator of {"images": uint8 [b, size, size, 3], "labels": int32 [b],
    "mask": float32 [b]} with b = batch / process_count; mask is 1 for images
    and 0 for padding.

  Raises:
    ValueError: if the batch is not divisible by the number of hosts.
  """
  share = plan_lib.host_slice(batch, process_index, process_count)

  def prepare(index: int) -> tuple[np.ndarray, int]:
    example = source[index]
    image = augment.decode(example.image, example.name)
    image = augment.resize_and_center_crop(image, size, resize_size=resize_size)
    return image, example.label

  def load(number: int, map_images: MapImages) -> Batch:
    ids = np.arange(number * batch, (number + 1) * batch)[share]
    real = ids < len(source)
    loaded = map_images(prepare, ids[real], size)
    padding = len(ids) - int(real.sum())
    padded = {
      key: np.pad(value, [(0, padding)] + [(0, 0)] * (value.ndim - 1))
      for key, value in loaded.items()
    }
    return padded | {"mask": real.astype(np.float32)}

  numbers = range(num_eval_batches(len(source), batch))
  return _iterate(numbers, load, num_workers, num_threads, prefetch_batches)


class MapImages:
  """Loads images in threads into one array; made anew in each process."""

  def __init__(self, num_threads: int):
    """`num_threads` 1 needs no pool."""
    self._num_threads = num_threads
    self._pool: futures.ThreadPoolExecutor | None = None
    self._lock = threading.Lock()

  def __call__(
    self,
    prepare: Callable[[int], tuple[np.ndarray, int]],
    ids: np.ndarray,
    size: int,
  ) -> Batch:
    """Runs `prepare` on every id.

    Args:
      prepare: gives the image [size, size, 3] and label of an example.
      ids: examples, int [b].
      size: image side, in pixels.

    Returns:
      {"images": uint8 [b, size, size, 3], "labels": int32 [b]}.
    """
    images = np.empty((len(ids), size, size, 3), np.uint8)
    labels = np.empty(len(ids), np.int32)

    def fill(place: int) -> None:
      images[place], labels[place] = prepare(int(ids[place]))

    places = range(len(ids))
    # OpenCV and NumPy let go of the interpreter lock, so threads do help.
    mapped = (
      map(fill, places)
      if self._num_threads == 1
      else self._threads().map(fill, places)
    )
    for _ in mapped:
      pass
    return {"images": images, "labels": labels}

  def _threads(self) -> futures.ThreadPoolExecutor:
    with self._lock:
      if self._pool is None:
        self._pool = futures.ThreadPoolExecutor(self._num_threads, "data-image")
      return self._pool

  def __reduce__(self):
    """A copy for a worker process has no threads yet."""
    return MapImages, (self._num_threads,)


def _iterate(
  elements: range,
  load: Callable[[int, MapImages], Batch],
  num_workers: int,
  num_threads: int | None,
  prefetch_batches: int,
) -> BatchIterator:
  """Loads elements ahead of their use, in threads or in processes."""
  least = {"num_workers": 0, "num_threads": 1, "prefetch_batches": 1}
  given = (num_workers, num_threads or 1, prefetch_batches)
  for (field, low), value in zip(least.items(), given, strict=True):
    if value < low:
      raise ValueError(f"{field}: {value} must be at least {low}.")
  if num_workers and not flags.FLAGS.is_parsed():
    raise ValueError(
      f"num_workers: {num_workers}: Grain's workers read absl flags: run under "
      "`absl.app.run`, or call `absl.flags.FLAGS.mark_as_parsed()` first."
    )
  if num_threads is None:
    num_threads = 1 if num_workers else min(os.cpu_count() or 1, _MAX_THREADS)
  map_images = MapImages(num_threads)
  dataset = grain.MapDataset.range(elements.start, elements.stop).map(
    lambda element: load(int(element), map_images)
  )
  if not num_workers:
    # OpenCV's own threads would only get in the way of ours.
    cv2.setNumThreads(0)
    # Two batches are in work at once, so that none of the image threads idles
    # while another finishes a batch. Grain's default would read 500 ahead.
    ahead = grain.ReadOptions(
      num_threads=min(2, prefetch_batches),
      prefetch_buffer_size=prefetch_batches,
    )
    return BatchIterator(dataset.to_iter_dataset(ahead))
  none_ahead = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return BatchIterator(
    dataset.to_iter_dataset(none_ahead).mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=prefetch_batches
      ),
      worker_init_fn=_start_worker,
    )
  )


def _start_worker(unused_index: int, unused_count: int) -> None:
  """Leaves a worker's end to its parent, and only to it.

  A Ctrl-C or a scheduler's SIGTERM reaches the whole process group; the parent
  needs its workers to finish what it is doing before it closes them.
  """
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  cv2.setNumThreads(0)
  parent = multiprocessing.parent_process()
  if parent is not None:
    # A killed parent closes nothing: its workers would wait forever.
    threading.Thread(
      target=_exit_after, args=(parent.sentinel,), daemon=True
    ).start()


def _exit_after(sentinel: int) -> None:
  connection.wait([sentinel])
  os._exit(1)
