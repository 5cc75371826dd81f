"""Takes the latency of one net on LiteRT apart, step by step.

    python -m benchmarks ablation --model=xxs

Each step is a file of the same random weights, written with one thing done
otherwise, up to the file that `python -m mobilevit_jax.export --format=litert
--precision=int8` writes. Only the speed of these files counts: not all of them
are accurate.
"""

import argparse
from collections.abc import Callable
import pathlib
import tempfile
from typing import Any

import numpy as np

from benchmarks import nets
from benchmarks import turns
from mobilevit_jax.export import contract
from mobilevit_jax.export import litert
from mobilevit_jax.export.litert import int8
from mobilevit_jax.export.litert import quantise
from mobilevit_jax.export.litert.writer import LiteRTOps

_CALIBRATION = 8
_COLUMNS: dict[str, turns.Column] = {
  "CPU ms": ("cpu_median", 1e3, ".2f"),
  "/ float32": ("to_fp32", 1, ".3f"),
  "partitions": ("partitions", 1, "d"),
  "outside": ("outside", 1, "d"),
}


class _Unfolded(LiteRTOps):
  """BatchNorm by itself: a product and a sum after each convolution."""

  def conv(self, x, kernel, bias, name, **options):
    relu6 = options.pop("relu6", False)
    # A convolution without bias, then scale and shift by themselves.
    y = super().conv(x, kernel, None, f"{name}/product", **options)
    if bias is not None:
      ones = self.constant(np.ones_like(bias), f"{name}/scale")
      y = self._binary("MUL", y, ones, f"{name}/scaled")
      y = self._binary("ADD", y, self.constant(bias, f"{name}/shift"), name)
    return self.op("RELU6", [y], y.shape, f"{name}/relu6") if relu6 else y


class _SixAxes(LiteRTOps):
  """Unfold and fold by one transpose of six axes, as the paper says it."""

  def reshape(self, x, shape, name):
    if name.endswith("unfold/rows"):  # the map, before anything
      b, h, w, d = x.shape
      x = super().reshape(x, (b, h // 2, 2, w // 2, 2, d), name)
      x = super().transpose(x, (0, 2, 4, 1, 3, 5), f"{name}/six")
      return super().reshape(x, (b, 4, h * w // 4, d), f"{name}/four")
    if name.endswith("fold/columns") and "unfold" not in name:
      b, n, _, d = x.shape
      h = int(n**0.5) * 2  # square images only
      x = super().reshape(x, (b, 2, 2, h // 2, n * 2 // h, d), name)
      x = super().transpose(x, (0, 3, 1, 4, 2, 5), f"{name}/six")
      return super().reshape(x, (b, h, n * 4 // h, d), f"{name}/four")
    return x if "fold/" in name else super().reshape(x, shape, name)

  def transpose(self, x, order, name):
    if name.endswith("/fold/patches"):  # `columns` turns [b, 4, n, d] itself
      return super().reshape(x, (x.shape[0], x.shape[2], 4, x.shape[3]), name)
    return x if "fold/" in name else super().transpose(x, order, name)


class _NoProducts(LiteRTOps):
  """Values in place of attention: neither its products nor softmax."""

  def matmul(self, x, y, name, *, transpose_y=False):
    return y

  def softmax(self, x, name):
    return x


class _Asymmetric(int8.Int8Ops):
  """Keys and values with their zeros wherever their ranges put them."""

  def _grid(self, name):
    return int8.grid(*self._ranges[name])


class _Everything(_Asymmetric):
  """Eight bits for all, LayerNorm and softmax too: a converter's default."""

  def _float(self, x):
    return self._int8(x)

  def op(self, code, inputs, shape, name, options=None, **fields):
    if code not in ("DEQUANTIZE", "QUANTIZE"):
      # LayerNorm's epsilon is far below one step of its input's grid.
      small = int8.grid(0, 1e-5)
      inputs = [
        self._convert(x, small) if x.name.endswith("/epsilon") else x
        for x in inputs
      ]
    return super().op(code, inputs, shape, name, options, **fields)

  def serialize(self, outputs, metadata):
    # Results stay float32, so that all steps answer with the same.
    outputs = {
      name: self._convert(ref, None) if ref.grid else ref
      for name, ref in outputs.items()
    }
    return super(int8.Int8Ops, self).serialize(outputs, metadata)


class _HardSwish(int8.Int8Ops):
  """The activation that phones are said to like, for SiLU."""

  def silu(self, x, name):
    x = self._int8(x)
    return self.op("HARD_SWISH", [x], x.shape, name, "HardSwishOptions")


def _local(name: str) -> bool:
  """Whether an operator is of the convolutions, not of the transformer."""
  return "global_rep/" not in name and "fold/" not in name


def files(model: str, size: int) -> dict[str, bytes]:
  """The steps' names and their LiteRT files."""
  options = contract.Options("int8", size=size)
  # Random weights take as long as trained ones.
  net = litert.net(nets.random(model), options)
  # Ranges of noise: only time is measured here, not answers.
  rng = np.random.default_rng(0)
  images = rng.random((_CALIBRATION, size, size, 3), np.float32)
  ranges = quantise.calibrate(net, images)
  # From here on each step adds something to eight bits.
  only = int8.Int8Ops
  steps: dict[str, Callable[[], LiteRTOps]] = {
    "float32": LiteRTOps,
    "float32, BatchNorm not folded": _Unfolded,
    "float32, unfold by six axes": _SixAxes,
    "float32, no products, no softmax": _NoProducts,
    "int8 weights alone (int8-dynamic)": int8.DynamicOps,
    "int8 everything": lambda: _Everything(ranges),
    "int8 convolutions": lambda: only(ranges, _local),
    "+ dense layers and moves": lambda: only(ranges, quantise.not_products),
    "+ attention, any zero points": lambda: _Asymmetric(ranges),
    "+ attention, keys and values at 0 (int8)": lambda: only(ranges),
    "the same with HARD_SWISH for SiLU": lambda: _HardSwish(ranges),
  }
  if model == "mobilenetv2":  # which has neither transformer nor SiLU
    absent = ("six", "products", "+", "SiLU")
    steps = {n: s for n, s in steps.items() if not any(w in n for w in absent)}
  contents = {}
  for name, make in steps.items():
    ops = make()
    contents[name] = ops.serialize(net(ops), "")
  return contents


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The command's flags."""
  add = parser.add_argument
  choices = [name for name in nets.CLASSIFIERS if name != "mobilenetv3"]
  add("--model", choices=choices, default="xxs")
  add("--size", type=int, default=256, help="in pixels")
  add("--rounds", type=int, default=20)
  add("--out", type=pathlib.Path, help="JSON file to write")


# Names alone differ between the files; the weights are the same.


def main(args: argparse.Namespace) -> tuple[list[str], list[dict[str, Any]]]:
  """Measures; returns a table and its rows."""
  contents = files(args.model, args.size)
  with tempfile.TemporaryDirectory() as folder:
    cases = {}
    for index, (step, content) in enumerate(contents.items()):
      path = pathlib.Path(folder, f"{index}.tflite")
      path.write_bytes(content)
      job = turns.Job(path, args.size)
      cases[turns.Case(args.model, "litert", step, 1)] = job
    samples = turns.measure(cases, args.rounds)
  first = next(iter(cases))
  results = []
  for case in cases:
    partitions, outside = litert.delegated(contents[case.precision])
    result = {
      "step": case.precision,
      "cpu_median": turns.median(samples[case], "cpu"),
      "to_fp32": turns.ratio(samples[case], samples[first], "cpu"),
      "partitions": partitions,
      "outside": sum(outside.values()),
    }
    results.append(result)
  title = f"{args.model} at {args.size} px, one thread; outside: operators that"
  rows = turns.table(results, ("step",), _COLUMNS)
  return [title, "XNNPACK does not take", *rows], results
