"""From a plan and a source to an iterator of batches, with Grain.

One Grain element is one global batch's share for this host, so step t is
element t: starting there costs nothing, and workers share nothing. What comes
out depends on the plan, the seed and the host's place alone, never on the
number of workers or threads.

A batch is a dict of arrays: what the task's transform gives, by its spec, and
for each example its id and its image's size in pixels before the transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures
import functools
from typing import Any, NamedTuple

import numpy as np

from mobilevit_jax.data import augment
from mobilevit_jax.data import bad_images
from mobilevit_jax.data import examples
from mobilevit_jax.data import loading
from mobilevit_jax.data import transforms
from mobilevit_jax.data.plan import BatchPlan
from mobilevit_jax.data.plan import host_slice

BatchIterator = loading.BatchIterator


def batch_spec(
  transform: transforms.Transform, size: transforms.Size, *, train: bool
) -> transforms.Spec:
  """Shape and type of every array of a batch, for one example.

  Beside the transform's own: `ids` int32, `sizes` int32 [2] (height and width
  of the image as it was decoded), and for evaluation `batch_mask` float32: 1
  for an example, 0 for padding and for a broken image.
  """
  # The transform's arrays, and what every task has besides.
  spec = transform.spec(size, train=train)
  spec |= {"ids": ((), np.int32), "sizes": ((2,), np.int32)}
  return spec if train else spec | {"batch_mask": ((), np.float32)}


def _row(
  example: examples.Example, index: int, arrays: transforms.Arrays
) -> dict[str, Any]:
  """An example's part of a batch; `example` is decoded, and may stand in."""
  return {**arrays, "ids": index, "sizes": np.shape(example.image)[:2]}


def train_batches(
  plan: BatchPlan,
  source: examples.Source,
  transform: transforms.Transform,
  *,
  seed: int,
  on_bad_image: str = "error",
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
    source: the examples; as many as the plan was made for.
    transform: what is done to them.
    seed: of the augmentation.
    on_bad_image: see `bad_images`. A replacement is augmented as the image
      that it stands in for.
    start_step: the first step to load.
    stop_step: the step to stop before; by default the plan's end.
    process_index: this host, from 0.
    process_count: number of hosts.
    num_workers: processes that load batches; 0 loads in this process.
    num_threads: threads that decode a batch, in each process; by default one
      per worker, or all CPUs when there are no workers.
    prefetch_batches: batches kept ready, by each worker.

  Returns:
    Iterator of batches as `batch_spec` says, of the step's size and of its
    batch / process_count; where images are replaced also "bad_ids", int32 [b]:
    the broken example, or -1.

  Raises:
    ValueError: if the arguments do not fit together.
  """
  # --- Checks before anything is started: a wrong number here would otherwise
  # show as a hang or as wrong images.
  if len(source) != plan.num_examples:
    raise ValueError(
      f"source={source.name} has {len(source)} examples, which must be those "
      f"of the plan, {plan.num_examples}"
    )
  bad_images.check_policy(on_bad_image)
  replace = on_bad_image == "replace"
  stop = plan.num_steps if stop_step is None else stop_step
  if not 0 <= start_step <= stop <= plan.num_steps:
    raise ValueError(
      f"start_step={start_step}, stop_step={stop} must rise and lie in "
      f"[0, {plan.num_steps}]"
    )
  # Raises where a batch can't be divided among the processes.
  for _, batch in plan.shapes:
    host_slice(batch, process_index, process_count)

  # --- What happens in the workers, for each step.
  def load(step: int, load_rows: loading.LoadRows) -> loading.Batch:
    planned = plan[step]
    ids = planned.ids[host_slice(planned.batch, process_index, process_count)]

    def prepare(index: int) -> transforms.Arrays:
      loaded = bad_images.load(source, transform, index, replace=replace)
      # By the id that the plan asked for, also where another image stands in:
      # the draws must not depend on what is broken.
      rng = augment.example_rng(seed, planned.epoch, index)
      arrays = transform.train(loaded.example, planned.size, rng)
      row = _row(loaded.example, index, arrays)
      return (
        row | {"bad_ids": index if loaded.error else -1} if replace else row
      )

    # Buffers have the size of this step, of several in a multi-scale run.
    spec = batch_spec(transform, planned.size, train=True)
    if replace:
      spec |= {"bad_ids": ((), np.int32)}
    return load_rows(prepare, ids, spec, len(ids))

  return loading.iterate(
    range(start_step, stop), load, num_workers, num_threads, prefetch_batches
  )


class EvalBatch(NamedTuple):
  """What one batch of an evaluation holds: images of one shape.

  Attributes:
    size: of the images, as the transform's `spec` takes it.
    ids: the examples, int [n]; the batch is padded to its full number.
  """

  size: transforms.Size
  ids: np.ndarray


def eval_plan(
  source: examples.Source,
  transform: transforms.Transform,
  *,
  size: int,
  batch: int,
) -> list[EvalBatch]:
  """The batches that hold every example once.

  In the examples' order, for a transform that makes all images of one size.
  For a `Shaped` one, shape by shape: nothing is padded but the last batch of
  each shape. That needs the sizes of all images, which are read for it; a
  broken image is told again when it is loaded, among those of the first shape.

  Args:
    source: the examples.
    transform: what is done to them.
    size: image side, in pixels.
    batch: global batch.
  """
  # --- All images of one shape share batches.
  groups: dict[transforms.Size, list[int]] = {}
  broken: list[int] = []
  if isinstance(transform, transforms.Shaped) and transform.keeps_aspect:
    # Headers only, but a million of them: threads hide the storage's latency.
    with futures.ThreadPoolExecutor() as pool:
      shapes = pool.map(
        lambda i: _shape(source, transform, i, size), range(len(source))
      )
      for index, shape in enumerate(shapes):
        (groups.setdefault(shape, []) if shape else broken).append(index)
    # Sorted, so that all processes agree on the order without talking.
    groups = dict(sorted(groups.items())) or {(size, size): []}
    # They need some place to be loaded and reported from.
    next(iter(groups.values())).extend(broken)
  else:
    groups = {size: [*range(len(source))]}
  return [
    EvalBatch(shape, np.array(ids[first : first + batch], np.int64))
    for shape, ids in groups.items()
    for first in range(0, len(ids), batch)
  ]


def _shape(
  source: examples.Source,
  transform: transforms.Shaped,
  index: int,
  size: int,
) -> tuple[int, int] | None:
  try:
    return transform.shape(source[index], size)
  # The same error will be raised again, with all its words, when it is loaded.
  except examples.StorageError:
    raise
  except examples.ImageError:
    return None


def eval_batches(
  source: examples.Source,
  transform: transforms.Transform,
  *,
  size: int,
  batch: int,
  plan: Sequence[EvalBatch] | None = None,
  on_bad_image: str = "error",
  process_index: int = 0,
  process_count: int = 1,
  num_workers: int = 0,
  num_threads: int | None = None,
  prefetch_batches: int = 2,
) -> BatchIterator:
  """Every example of the source once, on all hosts together.

  Every host gets the same number of batches of the same shapes, so the last
  ones are padded with zeros.

  Args:
    source: the examples.
    transform: what is done to them.
    size: image side, in pixels.
    batch: global batch.
    plan: of the same arguments, by `eval_plan`, where it is known already.
    on_bad_image: see `bad_images`. Here nothing stands in for an image:
      "replace" makes it a padding.
    process_index: this host, from 0.
    process_count: number of hosts.
    num_workers: see `train_batches`.
    num_threads: see `train_batches`.
    prefetch_batches: see `train_batches`.

  Returns:
    Iterator of batches as `batch_spec` says, of batch / process_count rows.

  Raises:
    ValueError: if the batch is not divisible by the number of hosts.
  """
  # The same for all processes: each has `share` of every batch's rows.
  share = host_slice(batch, process_index, process_count)
  bad_images.check_policy(on_bad_image)
  if plan is None:
    plan = eval_plan(source, transform, size=size, batch=batch)

  def prepare(index: int, size: transforms.Size) -> transforms.Arrays:
    try:
      example = transform.decode(source[index])
      row = _row(example, index, transform.evaluate(example, size))
    except examples.ImageError as error:
      if on_bad_image == "error" or isinstance(error, examples.StorageError):
        raise
      # A row of zeros whose mask is 0: it takes part in nothing.
      return {"ids": index}
    return row | {"batch_mask": 1}

  def load(number: int, load_rows: loading.LoadRows) -> loading.Batch:
    planned = plan[number]
    spec = batch_spec(transform, planned.size, train=False)
    # Processes beyond the last ids get fewer, maybe none; `load_rows` pads.
    own = functools.partial(prepare, size=planned.size)
    return load_rows(own, planned.ids[share], spec, share.stop - share.start)

  return loading.iterate(
    range(len(plan)), load, num_workers, num_threads, prefetch_batches
  )
