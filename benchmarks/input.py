"""How fast images get from files into batches, against torchvision.

    python -m benchmarks input --config=configs/imagenet.py \
      --config.data.dir=DIR
    python -m benchmarks input --synthetic=256

Measures, in alternating rounds, the pipeline as training uses it; its stages,
by one thread; the same of torchvision with `torch.utils.data.DataLoader`, where
PyTorch is installed (requirements-parity.txt); and bare JPEG decoding, which
bounds them all. The first has data, crops and flips from a configuration, the
second makes files of noise. Files are read once before, so they come from the
system's memory. By default each has one thread, for fair CPU-seconds;
`--num_workers=8` gives each eight processes.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import tempfile
from typing import Any

from absl import flags

from benchmarks import clock
from benchmarks import jax_input
from benchmarks import photographs
from mobilevit_jax.config import read_config
from mobilevit_jax.data import sources
from mobilevit_jax.data.transforms import classify

_PACKAGES = ("jax", "grain", "numpy", "opencv-python-headless", "pillow")
_TORCH = ("torch", "torchvision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the sub-command."""
  add = parser.add_argument
  add(
    "--config",
    help="whose data, crop and flip; --config.FIELD=VALUE sets a field",
  )
  add("--synthetic", type=int, metavar="N", help="N files of noise, 500 x 375")
  add("--size", type=int, default=256, help="pixels")
  add("--batch", type=int, default=64)
  add("--images", type=int, default=512, help="in a round")
  add("--rounds", type=int, default=5)
  add("--num_workers", type=int, default=0, help="processes")
  add("--num_threads", type=int, default=1, help="ours, in each")
  add("--out", type=pathlib.Path, help="JSON file to write")


def main(args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
  """Measures; returns a table and its numbers."""
  if not (args.config or args.synthetic):
    raise ValueError("give --config=FILE, --synthetic=N, or both")
  # Grain's workers read absl flags, and these are parsed by argparse.
  flags.FLAGS.mark_as_parsed()
  with tempfile.TemporaryDirectory() as folder:
    result = measure(_task(args, pathlib.Path(folder)), args.rounds)
  return readable(result), result


def _task(args: argparse.Namespace, folder: pathlib.Path) -> jax_input.Task:
  transform = classify.ClassifyTransform()
  name, split, data_dir = "folder", "train", str(folder)
  # The crop and flip of a configuration, or the paper's by default.
  if args.config:
    config = read_config(args.config, args.fields)
    data, how = config.data, config.transform
    transform = classify.ClassifyTransform(
      how.crop_scale, how.crop_ratio, how.flip
    )
    name, split, data_dir = data.name, data.train_split, data.dir
  if args.synthetic:
    name, split, data_dir = "folder", "train", str(folder)
    photographs.write(folder, args.synthetic)
  return jax_input.Task(
    source=sources.make_source(name, split, data_dir=data_dir, prepare=False),
    transform=transform,
    size=args.size,
    batch=args.batch,
    images=args.images,
    num_workers=args.num_workers,
    num_threads=args.num_threads,
  )


def measure(task: jax_input.Task, rounds: int) -> dict[str, Any]:
  """Runs all contestants in turn, and returns what the JSON says."""
  contestants = {
    # Decoding alone is the floor: nobody trains on encoded images.
    "decode": lambda: {"decode": jax_input.decode(task)},
    "mobilevit_jax": lambda: {"mobilevit_jax": jax_input.whole(task)},
    "stages": lambda: _prefixed("mobilevit_jax", jax_input.stages(task)),
  }
  has_torch = all(map(importlib.util.find_spec, _TORCH))
  if has_torch:
    from benchmarks import torch_input  # heavy

    contestants |= {
      "torchvision": lambda: {"torchvision": torch_input.whole(task)},
      "torchvision stages": lambda: _prefixed(
        "torchvision", torch_input.stages(task)
      ),
    }
  # Bytes of each file once, however often a round reads it.
  sizes = [len(task.source[index].image) for index in {*task.ids}]
  measured: list[dict[str, clock.Rate]] = []
  order = list(contestants)
  # Alternating rounds: what else the machine does meets all alike.
  for number in range(rounds + 1):
    found: dict[str, clock.Rate] = {}
    for name in order:
      found |= contestants[name]()
    if number:  # the first warms up
      measured.append({name: found[name] for name in sorted(found)})
    order.reverse()  # so that neither gains from being first
  # Medians over the rounds: one that something else disturbed has no say.
  results = clock.medians(measured)
  packages = [*_PACKAGES, *(_TORCH if has_torch else ())]
  return {
    "data": task.source.name,
    "files": len(sizes),
    "bytes_per_file": sum(sizes) / len(sizes),
    "size": task.size,
    "batch": task.batch,
    "images": task.num_batches * task.batch,
    "rounds": rounds,
    "num_workers": task.num_workers,
    "num_threads": task.num_threads,
    "cores": os.cpu_count(),
    "machine": platform.machine(),
    "python": platform.python_version(),
    "versions": {name: _version(name) for name in packages},
    "results": results,
    "ratios": clock.ratios(results),
  }


def _prefixed(name: str, rates: dict[str, clock.Rate]) -> dict[str, clock.Rate]:
  return {f"{name} {stage}": rate for stage, rate in rates.items()}


def _version(package: str) -> str | None:
  with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    return importlib.metadata.version(package)
  return None


def readable(result: dict[str, Any]) -> list[str]:
  """The result as a table, and a line for each ratio."""
  lines = [
    f"{result['data']}: {result['files']} files of "
    f"{result['bytes_per_file'] / 1e3:.0f} kB; {result['batch']} x "
    f"{result['size']} px; {result['num_workers']} worker processes, "
    f"{result['num_threads']} thread(s)",
    f"{'':28}{'images/s':>10}{'images/CPU-s':>14}{'CPU ms/image':>14}",
  ]
  for name, row in result["results"].items():
    first, _, stage = name.partition(" ")
    title = f"  {first} {stage}" if stage else first
    lines.append(
      f"{title:28}{row['images_per_second']:10,.0f}"
      f"{row['images_per_cpu_second']:14,.0f}"
      f"{1e3 / row['images_per_cpu_second']:14.3f}"
    )
  for name, ratio in result["ratios"].items():
    lines.append(f"mobilevit_jax / {name}, per CPU-second: {ratio:.2f}")
  return lines
