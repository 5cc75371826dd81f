"""Measures inference of one image by several engines, in turns.

    python -m benchmarks infer --engines=jax,litert,onnx \
      --models=xxs,xs,s,mobilenetv2 --threads=1,2

Every net has random weights; each file runs in a process of its own
(`infer_worker`), a few runs at a time, while the others wait, so that what else
the machine does meets all alike.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import tempfile
from typing import Any, cast

from flax import nnx
import jax
from jax import export as jax_export
import numpy as np

from benchmarks import nets
from benchmarks import turns
from mobilevit_jax import summary
from mobilevit_jax.export import contract
from mobilevit_jax.export import fold_bn
from mobilevit_jax.export import litert
from mobilevit_jax.export import onnx

# The files of an engine.
_PRECISIONS: dict[str, tuple[contract.Precision, ...]] = {
  "jax": ("fp32",),
  "litert": ("fp32", "int8", "int8-dynamic"),
  "onnx": ("fp32",),
}
_CALIBRATION = 8  # images; the nets know nothing, so they need not be real

Result = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The command's flags."""
  parser.add_argument("--engines", default="jax,litert,onnx")
  parser.add_argument("--models", default=",".join(nets.NETS))
  parser.add_argument("--precisions", default="fp32,int8,int8-dynamic")
  parser.add_argument("--threads", default="1,2")
  parser.add_argument("--size", type=int, default=256, help="in pixels")
  parser.add_argument("--rounds", type=int, default=20)
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")


def main(args: argparse.Namespace) -> int:
  """Measures and prints; returns the exit code."""
  if not hasattr(os, "sched_setaffinity"):
    raise ValueError("infer pins its processes, which only Linux can")
  engines = _choice("engines", args.engines, _PRECISIONS)
  models = _choice("models", args.models, nets.NETS)
  precisions = _choice("precisions", args.precisions, contract.PRECISIONS)
  threads = [int(n) for n in _choice("threads", args.threads, None)]
  for name, number in (("size", args.size), ("rounds", args.rounds)):
    if number < 1:
      raise ValueError(f"--{name}={number} must be at least 1")
  results = []
  with tempfile.TemporaryDirectory() as folder:
    files = {}
    for model in models:
      for engine in engines:
        for precision in _PRECISIONS[engine]:
          if precision in precisions:
            path = pathlib.Path(folder, f"{model}.{engine}.{precision}")
            path.write_bytes(_build(model, engine, precision, args.size))
            files[model, engine, precision] = path
    macs = {model: _macs(model, args.size) for model in models}
    for count in threads:
      cases = {
        turns.Case(*key, threads=count): path for key, path in files.items()
      }
      samples = turns.measure(cases, args.size, args.rounds)
      results += [
        _result(case, samples, macs[case.model], cases[case]) for case in cases
      ]
  print(_table(results))
  if args.out:
    document = {"size": args.size, "rounds": args.rounds, "results": results}
    args.out.write_text(json.dumps(document, indent=1) + "\n")
  return 0


def _choice(name: str, text: str, allowed: Any) -> list[Any]:
  words = text.split(",")
  for word in words:
    if allowed is not None and word not in allowed:
      names = ", ".join(allowed)
      raise ValueError(f"--{name}={text}: {word!r} must be one of {names}")
    if allowed is None and not (word.isdecimal() and int(word)):
      raise ValueError(f"--{name}={text}: {word!r} must be a number from 1")
  return words


def _macs(model: str, size: int) -> int:
  layers = summary.summarize(nets.abstract(model), size, size)
  return sum(layer.macs.total for layer in layers)


def _build(
  name: str, engine: str, precision: contract.Precision, size: int
) -> bytes:
  model = nets.random(name)
  options = contract.Options(precision, size=size)
  if engine == "onnx":
    return onnx.build(model, options, "")
  if engine == "litert":
    rng = np.random.default_rng(0)
    images = rng.random((_CALIBRATION, size, size, 3), np.float32)
    return litert.build(model, options, "", images)
  graphdef, state = nnx.split(fold_bn.fold_batch_norms(model))

  def run(images: jax.Array) -> jax.Array:
    return cast(Any, nnx.merge(graphdef, state))(images)

  shape = jax.ShapeDtypeStruct(options.shape, np.float32)
  exported = jax_export.export(jax.jit(run), platforms=["cpu"])(shape)
  return bytes(exported.serialize())


def _result(
  case: turns.Case,
  samples: Mapping[turns.Case, Sequence[turns.Sample]],
  macs: int,
  path: pathlib.Path,
) -> Result:
  """Numbers of a case; latencies in seconds."""
  mine = samples[case]
  latency = turns.median(mine, case.clock)
  wall = [second for sample in mine for second in sample["wall"]]
  result = {
    **dataclasses.asdict(case),
    "wall_median": turns.median(mine, "wall"),
    "wall_p90": float(np.quantile(wall, 0.9)),
    "cpu_median": turns.median(mine, "cpu"),
    "latency": latency,
    "runs": len(wall),
    "macs": macs,
    "ns_per_mmac": latency * 1e15 / macs,
    "file_bytes": path.stat().st_size,
    "peak_bytes": mine[-1]["peak"],
  }
  peers = {
    "to_fp32": dataclasses.replace(case, precision="fp32"),
    "to_mobilenetv2": dataclasses.replace(case, model="mobilenetv2"),
  }
  for name, peer in peers.items():
    if peer in samples:
      result[name] = turns.ratio(mine, samples[peer], case.clock)
  return result


_COLUMNS: tuple[str, ...] = (
  "model",
  "engine",
  "precision",
  "threads",
  "median ms",
  "p90 ms",
  "CPU ms",
  "MMAC",
  "ns/MMAC",
  "/ fp32",
  "/ MNv2",
  "file MB",
  "peak MB",
)


def _table(results: Sequence[Result]) -> str:
  rows = [_COLUMNS]
  for r in results:
    ratios = (f"{r[k]:.3f}" if k in r else "" for k in _RATIOS)
    milliseconds = (f"{r[k] * 1e3:.2f}" for k in _TIMES)
    row = (
      *(str(r[k]) for k in ("model", "engine", "precision", "threads")),
      *milliseconds,
      f"{r['macs'] / 1e6:.0f}",
      f"{r['ns_per_mmac']:.0f}",
      *ratios,
      f"{r['file_bytes'] / 1e6:.2f}",
      f"{r['peak_bytes'] / 1e6:.0f}" if r["peak_bytes"] else "",
    )
    rows.append(row)
  return turns.table(rows, words=3)


_TIMES = ("wall_median", "wall_p90", "cpu_median")
_RATIOS = ("to_fp32", "to_mobilenetv2")
