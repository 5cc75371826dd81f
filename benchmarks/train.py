"""How fast a train step is, what it takes, and how PyTorch's compares.

    python -m benchmarks train --variant=s --size=256 --batch=32
    python -m benchmarks train --variant=s --size=256 --batch=32 \
      --against=timm

The step is the trainer's: forward, backward, AdamW, EMA, on random images
that are already on the device. `--against=timm` makes the same step in
PyTorch (channels last), in the same process, in alternating rounds. Both take
the cores they may run on: `taskset -c 0` in front compares one core.

    python -m benchmarks train --task=detect --variant=xxs --size=320 \
      --batch=32 --against=torchvision

makes the step of a detector, matching and mining included, beside that of
torchvision's SSDLite on MobileNetV3-Large.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
from typing import Any

import jax

from benchmarks import jax_step
from benchmarks import timing
from mobilevit_jax import models
from mobilevit_jax import summary
from mobilevit_jax.models.depthwise import DEPTHWISE_KINDS
from mobilevit_jax.tasks import classify
from mobilevit_jax.tasks import detect
from mobilevit_jax.tasks.task import Task

# Of each task, as ImageNet and COCO have them.
NUM_CLASSES = {"classify": 1000, "detect": 80}
# What each can be compared with: packages that are needed.
AGAINST = {
  "timm": ("torch", "timm"),
  "torchvision": ("torch", "torchvision"),
}
_OPPONENTS = {"classify": "timm", "detect": "torchvision"}
# The recipe of configs/imagenet.py, at a constant rate.
RECIPE: dict[str, Any] = {
  "optimizer": {"lr": 2e-4, "weight_decay": 0.01},
  "ema_momentum": 5e-4,
}
_SMOOTHING = 0.1  # of a classifier's labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the sub-command."""
  add = parser.add_argument
  add("--task", default="classify", choices=tuple(NUM_CLASSES))
  add("--variant", default="s", help="short or full name")
  add("--size", type=int, default=256, help="pixels")
  add("--batch", type=int, default=32, help="global batch")
  add("--dtype", default="float32", choices=("float32", "bfloat16"))
  add("--depthwise", default="auto", choices=DEPTHWISE_KINDS)
  add("--bn_groups", type=int, default=1)
  add("--dropout", type=float, help="in the blocks; default: the variant's")
  add("--steps", type=int, default=3, help="in a round")
  add("--rounds", type=int, default=5)
  add("--against", choices=tuple(AGAINST), help="compare with it")
  add("--compile", action="store_true", help="torch.compile too")
  add("--out", type=pathlib.Path, help="JSON file to write")


def main(args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
  """Measures; returns a line for each contestant, and the numbers."""
  _check(args)
  result = measure(args)
  return readable(result), result


def _check(args: argparse.Namespace) -> None:
  if args.compile and args.against is None:
    raise ValueError("--compile is PyTorch's: add --against=timm")
  if args.against is None:
    return
  if args.against != _OPPONENTS[args.task]:
    raise ValueError(
      f"--against={args.against}: --task={args.task} is compared with "
      f"{_OPPONENTS[args.task]}"
    )
  missing = [
    name for name in AGAINST[args.against] if not importlib.util.find_spec(name)
  ]
  if missing:
    raise ValueError(
      f"--against={args.against} needs {' and '.join(missing)}: pip install "
      "-r requirements-parity.txt"
    )
  # JAX would otherwise take most of a GPU's memory before PyTorch starts.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if len(jax.devices()) > 1:
    raise ValueError(
      f"--against={args.against} compares one device, and here are "
      f"{len(jax.devices())}: set CUDA_VISIBLE_DEVICES=0"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
  """Compiles, runs and returns what the JSON says."""
  name = models.full_name(args.variant)
  num_classes = NUM_CLASSES[args.task]
  fields: dict[str, Any] = {
    "num_classes": num_classes,
    "dropout": args.dropout,
    "bn_groups": args.bn_groups,
    "depthwise": args.depthwise,
    "dtype": args.dtype,
  }
  task: Task
  if args.task == "detect":
    fields["head"] = "ssdlite"
    task = detect.Detect(num_classes)
    batch = jax_step.random_boxes(args.size, args.batch, num_classes)
  else:
    rate = models.family_of(name).backbone.classifier_dropout
    fields["classifier_dropout"] = rate
    task = classify.Classify(label_smoothing=_SMOOTHING)
    batch = jax_step.random_batch(args.size, args.batch, num_classes)
  if args.dropout is None:
    fields["dropout"] = getattr(models.VARIANTS[name], "dropout", 0.0)
  if args.batch % (args.bn_groups * len(jax.devices())):
    raise ValueError(
      f"--batch={args.batch} must be a multiple of --bn_groups times "
      f"{len(jax.devices())} device(s)"
    )
  macs = summary.forward_macs(name, args.size, args.size, **fields)
  ours = jax_step.JaxStep(name, batch, task=task, fields=fields, **RECIPE)
  details: dict[str, dict[str, Any]] = {
    "jax": {
      "compile_seconds": ours.compile_seconds,
      **ours.memory(),  # before PyTorch takes some
      "xla_flops": ours.xla_flops(),
      "first_loss": ours.first_loss,
    }
  }
  run = {"jax": ours.run}
  if args.against:
    kinds = {f"{args.against}_eager": False}
    if args.compile:
      kinds[f"{args.against}_compiled"] = True
    for kind, compiled in kinds.items():
      theirs = _torch_step(args.against, name, batch, fields, compiled)
      run[kind] = theirs.run
      details[kind] = {
        "device": theirs.device_name(),
        "first_step_seconds": theirs.first_step_seconds,
        "first_loss": theirs.first_loss,
        "allocator_peak_bytes": theirs.peak_memory(),
      }
  times = timing.alternate(run, rounds=args.rounds, steps=args.steps)
  step_flops = summary.train_flops(macs, args.batch)
  peak = summary.peak_flops(jax.devices()[0].device_kind, args.dtype)
  for kind, each in times.items():
    rate = 1 / each.wall_median
    details[kind] |= {
      "steps_per_second": rate,
      "images_per_second": rate * args.batch,
      "step_seconds": each.wall_median,
      "step_cpu_seconds": each.cpu_median,
      "model_flops_per_second": rate * step_flops,
      "mfu": peak and rate * step_flops / (peak * len(jax.devices())),
      "rounds": {"wall": each.wall, "cpu": each.cpu},
    }
  return {
    **_setting(args, name, fields),
    "model_flops": step_flops,
    **details,
    "ratio": {
      kind: {
        "wall": times["jax"].wall_median / each.wall_median,
        "cpu": times["jax"].cpu_median / each.cpu_median,
      }
      for kind, each in times.items()
      if kind != "jax"
    },
  }


def _setting(
  args: argparse.Namespace, name: str, fields: dict[str, Any]
) -> dict[str, Any]:
  packages = ["jax", "jaxlib", "flax", "optax"]
  packages += AGAINST.get(args.against, ())
  return {
    "model": name,
    "task": args.task,
    "size": args.size,
    "batch": args.batch,
    **fields,
    "steps": args.steps,
    "device": jax.devices()[0].device_kind,
    "devices": len(jax.devices()),
    "cores": len(os.sched_getaffinity(0)),
    "machine": platform.machine(),
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
    "ld_preload": os.environ.get("LD_PRELOAD", ""),
    "versions": {
      package: importlib.metadata.version(package) for package in packages
    },
  }


def _torch_step(
  against: str, name: str, batch: Any, fields: Any, compiled: bool
):
  from benchmarks import torch_step  # PyTorch only where asked for

  if against == "torchvision":
    work = torch_step.detection(batch, fields["num_classes"])
  else:
    work = torch_step.classification(
      name,
      batch,
      num_classes=fields["num_classes"],
      dropout=fields["dropout"],
      classifier_dropout=fields["classifier_dropout"],
      label_smoothing=_SMOOTHING,
    )
  return torch_step.TorchStep(
    work, dtype=fields["dtype"], compiled=compiled, **RECIPE
  )


def readable(result: dict[str, Any]) -> list[str]:
  """The result in a line for each contestant, and one for each ratio."""
  lines = []
  for kind in ("jax", *result["ratio"]):
    each = result[kind]
    line = (
      f"{kind}: {result['model']} {result['dtype']} {result['batch']} x "
      f"{result['size']} px: {each['steps_per_second']:.3g} steps/s, "
      f"{each['images_per_second']:.4g} images/s, "
      f"{each['step_cpu_seconds']:.3g} CPU s a step"
    )
    if each["mfu"]:
      line += f", MFU {each['mfu']:.1%}"
    if "compile_seconds" in each:
      line += f", compiled in {each['compile_seconds']:.1f} s"
      line += f", temporaries {each.get('xla_temp_bytes', 0) / 1e9:.2f} GB"
    lines.append(line)
  for kind, ratio in result["ratio"].items():
    lines.append(
      f"jax / {kind}: {ratio['wall']:.2f} of the time, "
      f"{ratio['cpu']:.2f} of the CPU time"
    )
  return lines
