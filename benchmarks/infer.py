"""Measures inference of one image by several engines, in turns.

    python -m benchmarks infer --engines=jax,litert,onnx \
      --models=xxs,xs,s,mobilenetv2 --threads=1,2

`xxs_deeplabv3` and `xxs_ssdlite` are whole segmenters and detectors, from an
image to a class for each pixel and to suppressed boxes; `--engines=torch` runs
PyTorch's in their place. Every net has random weights; each file runs in a
process of its own (`infer_worker`), a few runs at a time, while the others
wait, so that what else the machine does meets all alike.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
import sys
import tempfile
from typing import Any

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
from mobilevit_jax.export import nms
from mobilevit_jax.export import onnx
from mobilevit_jax.models import Net

# The files of an engine.
_PRECISIONS: dict[str, tuple[contract.Precision, ...]] = {
  "jax": ("fp32",),
  "litert": ("fp32", "int8", "int8-dynamic"),
  "onnx": ("fp32",),
  "torch": ("fp32",),
}
# Boxes of a detector that compete, of all anchors and classes: of a random net
# none or all would, and suppression takes as long as they are many.
_CANDIDATES = 200
_CALIBRATION = 8  # images; the nets know nothing, so they need not be real
_COLUMNS: dict[str, turns.Column] = {
  "median ms": ("wall_median", 1e3, ".2f"),
  "p90 ms": ("wall_p90", 1e3, ".2f"),
  "CPU ms": ("cpu_median", 1e3, ".2f"),
  "MMAC": ("macs", 1e-6, ".0f"),
  "ns/MMAC": ("ns_per_mmac", 1, ".0f"),
  "/ fp32": ("to_fp32", 1, ".3f"),
  "/ MNv2": ("to_mobilenetv2", 1, ".3f"),
  "/ torch": ("to_torch", 1, ".3f"),
  "file MB": ("file_bytes", 1e-6, ".2f"),
  "peak MB": ("peak_bytes", 1e-6, ".0f"),
}

Result = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The command's flags."""
  add = parser.add_argument
  add("--engines", default="jax,litert,onnx")
  add("--models", default=",".join(nets.CLASSIFIERS))
  add("--precisions", default="fp32,int8,int8-dynamic")
  add("--threads", default="1,2")
  add("--size", type=int, help="in pixels; by default the net's own")
  add("--rounds", type=int, default=20)
  add(
    "--torch_python",
    default=sys.executable,
    help="interpreter that has PyTorch, transformers and torchvision",
  )
  add("--out", type=pathlib.Path, help="JSON file to write")


def main(args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
  """Measures; returns a table and its numbers."""
  # A scheduler that moves processes between cores would blur the medians.
  if not hasattr(os, "sched_setaffinity"):
    raise ValueError("infer pins its processes, which only Linux can")
  engines = _choice("engines", args.engines, _PRECISIONS)
  models = _choice("models", args.models, nets.NETS)
  precisions = _choice("precisions", args.precisions, contract.PRECISIONS)
  threads = [int(n) for n in _choice("threads", args.threads, None)]
  results = []
  with tempfile.TemporaryDirectory() as folder:
    jobs = {}
    for model in models:
      size = args.size or nets.NETS[model].size
      net = nets.random(model)
      # Random nets find no objects, so the threshold is set to let a usual
      # number of boxes compete.
      how = _suppression(net, size) if _detects(model) else None
      for engine in engines:
        if engine == "torch" and nets.NETS[model].torch is None:
          continue
        for precision in _PRECISIONS[engine]:
          if precision in precisions:
            path = pathlib.Path(folder, f"{model}.{engine}.{precision}")
            path.write_bytes(_build(net, model, engine, precision, size, how))
            jobs[model, engine, precision] = turns.Job(
              path,
              size,
              how and {**dataclasses.asdict(how), **_after(engine)},
              args.torch_python if engine == "torch" else sys.executable,
            )
    macs = {
      model: _macs(model, args.size or nets.NETS[model].size)
      for model in models
    }
    # One count of threads at a time: engines pin themselves to as many cores.
    for count in threads:
      cases = {
        turns.Case(*key, threads=count): job for key, job in jobs.items()
      }
      samples = turns.measure(cases, args.rounds)
      results += [
        _result(case, samples, macs[case.model], cases[case]) for case in cases
      ]
  for result in results:
    if result["engine"] == "torch":
      result["file_bytes"] = None  # a name
      if nets.NETS[result["model"]].torch == "torchvision":
        result["macs"] = result["ns_per_mmac"] = None  # another net's
  document = {"rounds": args.rounds, "results": results}
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


def _detects(model: str) -> bool:
  return nets.NETS[model].output == "boxes"


def _after(engine: str) -> dict[str, int]:
  """What PyTorch's net is told beside `nms.Suppression`'s fields."""
  return {"candidates": _CANDIDATES} if engine == "torch" else {}


def _suppression(net: Net, size: int) -> nms.Suppression:
  """With the threshold that so many boxes pass on the workers' image."""
  options = contract.Options(size=size, output="boxes")
  rng = np.random.default_rng(0)
  images = rng.random(options.shape, np.float32)
  scores = jax.jit(lambda x: contract.outputs(net, x, options))(images)[
    "scores"
  ]
  # Scores of all anchors and classes, in one order.
  ordered = np.sort(np.asarray(scores), axis=None)
  return nms.Suppression(threshold=float(ordered[-_CANDIDATES - 1]))


def _build(
  model: Net,
  name: str,
  engine: str,
  precision: contract.Precision,
  size: int,
  how: nms.Suppression | None,
) -> bytes:
  row = nets.NETS[name]
  if engine == "torch":
    return str(row.torch).encode()
  options = contract.Options(precision, size=size, output=row.output)
  if engine == "litert":
    rng = np.random.default_rng(0)
    images = rng.random((_CALIBRATION, size, size, 3), np.float32)
    return litert.build(model, options, "", images)
  options = dataclasses.replace(options, nms=how)
  # ONNX and JAX suppress in the file, LiteRT's file beside it.
  if engine == "onnx":
    return onnx.build(model, options, "")
  graphdef, state = nnx.split(fold_bn.fold_batch_norms(model))

  def run(images: jax.Array) -> dict[str, jax.Array]:
    return contract.outputs(nnx.merge(graphdef, state), images, options)

  shape = jax.ShapeDtypeStruct(options.shape, np.float32)
  exported = jax_export.export(jax.jit(run), platforms=["cpu"])(shape)
  return bytes(exported.serialize())


def _result(
  case: turns.Case,
  samples: Mapping[turns.Case, Sequence[turns.Sample]],
  macs: int,
  job: turns.Job,
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
    "size": job.size,
    "macs": macs,
    # Seconds over millions of multiply-adds, in nanoseconds.
    "ns_per_mmac": latency * 1e15 / macs,
    "file_bytes": job.path.stat().st_size,
    "peak_bytes": mine[-1]["peak"],
  }
  peers = {
    "to_fp32": dataclasses.replace(case, precision="fp32"),
    "to_mobilenetv2": dataclasses.replace(case, model="mobilenetv2"),
    "to_torch": dataclasses.replace(case, engine="torch", precision="fp32"),
  }
  for name, peer in peers.items():
    if peer in samples:
      result[name] = turns.ratio(mine, samples[peer], case.clock)
  return result
