"""Our input pipeline, whole and by stage, and what bare decoding would take."""

from concurrent import futures
import dataclasses
import itertools

import cv2
import jax
import numpy as np

from benchmarks import clock
from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data.plan import BatchPlan
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.data.transforms import geometry
from mobilevit_jax.run import sharding

_WARM_UP = 2  # batches: workers have started, buffers are as full as later


@dataclasses.dataclass(frozen=True)
class Task:
  """What every contestant does.

  Attributes:
    source: the images, still encoded.
    transform: crop and flip.
    size: of the result, in pixels.
    batch: images in a batch.
    images: in a round, rounded up to whole batches.
    num_workers: processes; 0 loads in this one.
    num_threads: threads of ours that decode, in each process.
  """

  source: examples.Source
  transform: classify.ClassifyTransform
  size: int
  batch: int
  images: int
  num_workers: int
  num_threads: int

  @property
  def num_batches(self) -> int:
    """In a round."""
    return -(-self.images // self.batch)

  @property
  def ids(self) -> list[int]:
    """Examples of a round by stage, in a fixed random order."""
    order = np.random.default_rng(0).permutation(len(self.source)).tolist()
    # Over and over, where the set is smaller than a round.
    endless = itertools.cycle(order)
    return [*itertools.islice(endless, self.num_batches * self.batch)]


def whole(task: Task) -> clock.Rate:
  """Batches as training takes them, from the middle of a longer run."""
  # Loading goes on to the end of the time, as it does in training.
  ahead = 4 * max(task.num_workers, 1)
  plan = BatchPlan(
    len(task.source),
    seed=0,
    sizes=(task.size,),
    base_size=task.size,
    base_batch=task.batch,
    num_steps=_WARM_UP + task.num_batches + ahead,
  )
  with pipeline.train_batches(
    plan,
    task.source,
    task.transform,
    seed=0,
    num_workers=task.num_workers,
    num_threads=task.num_threads,
    # One batch in work for one thread: two would be two threads.
    prefetch_batches=1 if task.num_threads == 1 else 2,
  ) as batches:
    for _ in range(_WARM_UP):
      next(batches)
    begin, images = clock.now(), 0
    for _ in range(task.num_batches):
      images += len(next(batches)["labels"])
    end = clock.now()
  return clock.Rate(images, end[0] - begin[0], end[1] - begin[1])


def stages(task: Task) -> dict[str, clock.Rate]:
  """The same work by one thread, stage by stage."""
  layout, laps = sharding.Layout(), clock.Laps()
  ids, size, how = task.ids, task.size, task.transform
  for first in range(0, len(ids), task.batch):
    # A new array each time, as training needs: reused memory would be faster.
    images = np.empty((task.batch, size, size, 3), np.uint8)
    laps.start()
    for place, index in enumerate(ids[first : first + task.batch]):
      example = task.source[index]
      laps.lap("read")
      pixels = augment.decode(example.image, example.name)
      laps.lap("decode")
      rng = augment.example_rng(0, 0, index)
      height, width = pixels.shape[:2]
      box = augment.crop_box(
        height, width, rng, scale=how.crop_scale, ratio=how.crop_ratio
      )
      flip = rng.random() < how.flip
      # Without a thread between, so that each lap is one stage.
      image = geometry.Affine.crop(box, size, size, flip=flip).pixels(pixels)
      laps.lap("crop+resize")
      images[place] = image
      laps.lap("batch")
    jax.block_until_ready(layout.put_batch({"images": images}))
    laps.lap("transfer")
  return laps.rates(len(ids))


def decode(task: Task) -> clock.Rate:
  """Nothing but decoding, of files in memory: what no pipeline can pass."""
  ids = task.ids
  files = {index: task.source[index].image for index in {*ids}}
  if any(isinstance(file, np.ndarray) for file in files.values()):
    raise ValueError(f"{task.source.name} must hold encoded images")
  # Views of the bytes: nothing is copied within the time.
  buffers = [np.frombuffer(files[index], np.uint8) for index in ids]
  cv2.setNumThreads(0)

  def imdecode(part: int) -> None:
    # Each thread takes every n-th file, so that large ones spread.
    for buffer in buffers[part :: task.num_threads]:
      cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB)

  with futures.ThreadPoolExecutor(task.num_threads) as pool:
    begin = clock.now()
    for _ in pool.map(imdecode, range(task.num_threads)):
      pass
    end = clock.now()
  return clock.Rate(len(ids), end[0] - begin[0], end[1] - begin[1])
