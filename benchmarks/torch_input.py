"""What torchvision does with the same files; needs requirements-parity.txt."""

import importlib
import io
from typing import Any

from PIL import Image

from benchmarks import clock
from benchmarks import jax_input

_WARM_UP = 2
# Not among the requirements, so type checkers can't see them.
torch: Any = importlib.import_module("torch")
v2: Any = importlib.import_module("torchvision.transforms.v2")


class _Dataset:
  """Decoded by Pillow, as torchvision's `ImageFolder` does."""

  def __init__(self, task: jax_input.Task):
    self._source = task.source
    self._transform = v2.Compose([*_crop(task), v2.PILToTensor()])

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> tuple[Any, int]:
    example = self._source[index]
    return self._transform(_decode(example.image)), example.target["label"]


def _decode(file: Any) -> Image.Image:
  return Image.open(io.BytesIO(file)).convert("RGB")


def _crop(task: jax_input.Task) -> list[Any]:
  how = task.transform
  return [
    v2.RandomResizedCrop(task.size, how.crop_scale, how.crop_ratio),
    v2.RandomHorizontalFlip(how.flip),
  ]


def whole(task: jax_input.Task) -> clock.Rate:
  """`DataLoader` over the same files, from the middle of a longer run."""
  # One thread, as ours has; worker processes are the parallelism.
  torch.set_num_threads(1)
  ids = task.ids
  ahead = (_WARM_UP + 4 * task.num_workers) * task.batch
  loader = torch.utils.data.DataLoader(
    _Dataset(task),
    task.batch,
    # Ids in the order of ours, and some more, so that loading goes on to the
    # end of the measurement.
    sampler=[*ids, *(ids * (-(-ahead // len(ids))))[:ahead]],
    num_workers=task.num_workers,
    # JAX has threads, which forked processes would lose.
    multiprocessing_context="spawn" if task.num_workers else None,
  )
  batches = iter(loader)
  for _ in range(_WARM_UP):
    next(batches)
  begin, images = clock.now(), 0
  for _ in range(task.num_batches):
    images += len(next(batches)[1])
  end = clock.now()
  return clock.Rate(images, end[0] - begin[0], end[1] - begin[1])


def stages(task: jax_input.Task) -> dict[str, clock.Rate]:
  """The same work by one thread, stage by stage."""
  torch.set_num_threads(1)
  crop, to_tensor = v2.Compose(_crop(task)), v2.PILToTensor()
  ids, laps = task.ids, clock.Laps()
  for first in range(0, len(ids), task.batch):
    tensors = []
    laps.start()
    for index in ids[first : first + task.batch]:
      example = task.source[index]
      laps.lap("read")
      image = _decode(example.image)
      laps.lap("decode")
      image = crop(image)
      laps.lap("crop+resize")
      tensors.append(to_tensor(image))
      laps.lap("batch")
    batch = torch.stack(tensors)
    laps.lap("batch")
    if torch.cuda.is_available():
      batch.to("cuda")
      torch.cuda.synchronize()
      laps.lap("transfer")
  return laps.rates(len(ids))
