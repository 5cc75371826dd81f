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
_COLUMNS: dict[str, turns.Column] = {
  "median ms": ("wall_median", 1e3, ".2f"),
  "p90 ms": ("wall_p90", 1e3, ".2f"),
  "CPU ms": ("cpu_median", 1e3, ".2f"),
  "MMAC": ("macs", 1e-6, ".0f"),
  "ns/MMAC": ("ns_per_mmac", 1, ".0f"),
  "/ fp32": ("to_fp32", 1, ".3f"),
  "/ MNv2": ("to_mobilenetv2", 1, ".3f"),
  "file MB": ("file_bytes", 1e-6, ".2f"),
  "peak MB": ("peak_bytes", 1e-6, ".0f"),
}

Result = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The command's flags."""
  add = parser.add_argument
  add("--engines", default="jax,litert,onnx")
  add("--models", default=",".join(nets.NETS))
  add("--precisions", default="fp32,int8,int8-dynamic")
  add("--threads", default="1,2")
  add("--size", type=int, default=256, help="in pixels")
  add("--rounds", type=int, default=20)
  add("--out", type=pathlib.Path, help="JSON file to write")


def main(args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
  """Measures; returns a table and its numbers."""
  if not hasattr(os, "sched_setaffinity"):
    raise ValueError("infer pins its processes, which only Linux can")
  engines = _choice("engines", args.engines, _PRECISIONS)
  models = _choice("models", args.models, nets.NETS)
  precisions = _choice("precisions", args.precisions, contract.PRECISIONS)
  threads = [int(n) for n in _choice("threads", args.threads, None)]
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
  document = {"size": args.size, "rounds": args.rounds, "results": results}
  words = ("model", "engine", "precision", "threads")
  return turns.table(results, words, _COLUMNS), document


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
