"""From a plan and a source to an iterator of batches, with Grain.

One Grain element is one global batch's share for this host, so step t is
element t: starting there costs nothing, and workers share nothing. What comes
out depends on the plan, the seed and the host's place alone, never on the
number of workers or threads.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobilevit_jax.data import augment
from mobilevit_jax.data import bad_images
from mobilevit_jax.data import examples
from mobilevit_jax.data import loading
from mobilevit_jax.data import plan as plan_lib
from mobilevit_jax.data import randaugment
from mobilevit_jax.data import sources
from mobilevit_jax.data.transforms import presets

BatchIterator = loading.BatchIterator


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What is done to a training image; the defaults are the paper's (4.1).

  Attributes:
    crop_scale: least and most area of the random crop, as parts of the image.
    crop_ratio: least and most width / height of the crop.
    flip: probability of a horizontal flip.
    randaugment_ops: operations of RandAugment; 0 for none.
    randaugment_magnitude: their strength, from 0 to 10.
    color_jitter: strength of random brightness, contrast and saturation.
    erase: probability of overwriting a random box with noise.
  """

  crop_scale: tuple[float, float] = (0.08, 1.0)
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: float = 0.5
  randaugment_ops: int = 0
  randaugment_magnitude: float = 9.0
  color_jitter: float = 0.0
  erase: float = 0.0

  def __post_init__(self):
    """Checks the ranges."""
    low, high = self.crop_scale
    if not 0 < low <= high <= 1:
      raise ValueError(
        f"crop_scale={self.crop_scale} must rise and lie in (0, 1]"
      )
    low, high = self.crop_ratio
    if not 0 < low <= high:
      raise ValueError(f"crop_ratio={self.crop_ratio} must rise from above 0")
    for name in ("flip", "erase"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f"{name}={getattr(self, name)} must be a probability")
    if self.randaugment_ops < 0:
      raise ValueError(
        f"randaugment_ops={self.randaugment_ops} must be at least 0"
      )
    if not 0 <= self.randaugment_magnitude <= randaugment.MAX_MAGNITUDE:
      raise ValueError(
        f"randaugment_magnitude={self.randaugment_magnitude} must lie in "
        f"[0, {randaugment.MAX_MAGNITUDE}]"
      )
    if not 0 <= self.color_jitter <= 1:
      raise ValueError(f"color_jitter={self.color_jitter} must lie in [0, 1]")

  def __call__(
    self, pixels: np.ndarray, size: int, rng: np.random.Generator
  ) -> np.ndarray:
    """From uint8 [h, w, 3] to uint8 [size, size, 3]."""
    image = augment.random_resized_crop(
      pixels, size, rng, scale=self.crop_scale, ratio=self.crop_ratio
    )
    image = augment.horizontal_flip(image, rng, self.flip)
    # What is off draws nothing: the paper's recipe needs two draws.
    if self.randaugment_ops:
      image = randaugment.rand_augment(
        image,
        rng,
        num_ops=self.randaugment_ops,
        magnitude=self.randaugment_magnitude,
      )
    if self.color_jitter:
      image = randaugment.color_jitter(image, rng, self.color_jitter)
    if self.erase:
      image = augment.random_erase(image, rng, self.erase)
    return image


def train_batches(
  plan: plan_lib.BatchPlan,
  source: sources.Source,
  *,
  seed: int,
  augmentation: Augmentation,
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
    source: the images; as many as the plan was made for.
    seed: of the augmentation.
    augmentation: what is done to the images.
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
    Iterator of {"images": uint8 [b, size, size, 3], "labels": int32 [b]} with
    b the step's batch / process_count; where images are replaced also
    "bad_ids", int64 [b]: the broken example, or -1.

  Raises:
    ValueError: if the arguments do not fit together.
  """
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
  for _, batch in plan.shapes:
    plan_lib.host_slice(batch, process_index, process_count)

  def load(step: int, map_images: loading.MapImages) -> loading.Batch:
    planned = plan[step]
    share = plan.host_slice(planned.batch, process_index, process_count)

    def prepare(index: int, out: np.ndarray) -> tuple[int, bool]:
      loaded = bad_images.load(source, index, replace=replace)
      rng = augment.example_rng(seed, planned.epoch, index)
      out[...] = augmentation(loaded.pixels, planned.size, rng)
      return loaded.label, loaded.id == index

    batch = map_images(prepare, planned.ids[share], planned.size)
    if not replace:
      del batch["bad_ids"]
    return batch

  return loading.iterate(
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
  preset: str = "cvnets",
  resize_size: int | None = None,
  on_bad_image: str = "error",
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
    preset: see `presets.preprocess`.
    resize_size: see `presets.preprocess`.
    on_bad_image: see `bad_images`. Here nothing stands in for an image:
      "replace" makes it a padding.
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
  bad_images.check_policy(on_bad_image)

  def prepare(index: int, out: np.ndarray) -> tuple[int, bool]:
    try:
      example = source[index]
      out[...] = presets.preprocess(
        example.image, preset, size, resize_size=resize_size, name=example.name
      )
    except examples.ImageError as error:
      if on_bad_image == "error" or isinstance(error, examples.StorageError):
        raise
      out[...] = 0
      return 0, False
    return example.label, True

  def load(number: int, map_images: loading.MapImages) -> loading.Batch:
    ids = np.arange(number * batch, (number + 1) * batch)[share]
    ids = ids[ids < len(source)]
    loaded = map_images(prepare, ids, size)
    loaded["mask"] = (loaded.pop("bad_ids") < 0).astype(np.float32)
    padding = share.stop - share.start - len(ids)
    return {
      key: np.pad(value, [(0, padding)] + [(0, 0)] * (value.ndim - 1))
      for key, value in loaded.items()
    }

  numbers = range(num_eval_batches(len(source), batch))
  return loading.iterate(
    numbers, load, num_workers, num_threads, prefetch_batches
  )
