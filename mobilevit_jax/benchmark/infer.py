"""Measures inference of one image by several engines, in turns.

    python -m mobilevit_jax.benchmark infer --engines=jax,litert,onnx \
      --models=xxs,xs,s,mobilenetv2 --threads=1,2

Every net has random weights; each file runs in a process of its own
(`infer_worker`), a few runs at a time, while the others wait, so that what else
the machine does meets all alike.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any, cast

from flax import nnx
import jax
from jax import export as jax_export
import numpy as np

from mobilevit_jax import summary
from mobilevit_jax.benchmark import infer_worker
from mobilevit_jax.benchmark import nets
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
_BLOCK_SECONDS = 0.1  # about so long runs one file before the next one's turn
_CALIBRATION = 8  # images; the nets know nothing, so they need not be real

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
  """What is measured: a net's file in an engine with some threads."""

  model: str
  engine: str
  precision: contract.Precision
  threads: int


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
      cases = {Case(*key, count): path for key, path in files.items()}
      samples = _measure(cases, args.size, args.rounds)
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

  @jax.jit
  def run(images: jax.Array) -> jax.Array:
    return cast(Any, nnx.merge(graphdef, state))(images)

  shape = jax.ShapeDtypeStruct(options.shape, np.float32)
  return bytes(jax_export.export(run, platforms=["cpu"])(shape).serialize())


class _Worker:
  """A process of `infer_worker`."""

  def __init__(self, case: Case, path: pathlib.Path, size: int):
    script = [sys.executable, "-P", infer_worker.__file__]
    arguments = [case.engine, str(path), str(size), str(case.threads)]
    self._process = subprocess.Popen(
      [*script, *arguments],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    self._name = f"{case.model}, {case.engine} {case.precision}"

  def run(self, times: int) -> dict[str, Any]:
    """Runs the file so often; see `infer_worker`."""
    process = self._process
    assert process.stdin and process.stdout and process.stderr
    try:
      print(times, file=process.stdin, flush=True)
      line = process.stdout.readline()
    except BrokenPipeError:
      line = ""
    if not line:
      process.kill()
      words = process.stderr.read().strip().splitlines() or ["it stopped"]
      raise ValueError(f"{self._name}: {words[-1]}")
    return json.loads(line)

  def stop(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()


@contextlib.contextmanager
def _workers(
  cases: dict[Case, pathlib.Path], size: int
) -> Iterator[dict[Case, _Worker]]:
  with contextlib.ExitStack() as stack:
    workers = {}
    for case, path in cases.items():
      workers[case] = _Worker(case, path, size)
      stack.callback(workers[case].stop)
      workers[case].run(2)  # alone, while it gets ready
    yield workers


def _measure(
  cases: dict[Case, pathlib.Path], size: int, rounds: int
) -> dict[Case, list[dict[str, Any]]]:
  """A sample of each case in each round."""
  samples: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases}
  with _workers(cases, size) as workers:
    times = {}
    for case, worker in workers.items():
      seconds = statistics.median(worker.run(3)["wall"])
      times[case] = max(1, round(_BLOCK_SECONDS / seconds))
    for _ in range(rounds):
      for case, worker in workers.items():
        samples[case].append(worker.run(times[case]))
  return samples


def _result(
  case: Case,
  samples: dict[Case, list[dict[str, Any]]],
  macs: int,
  path: pathlib.Path,
) -> Result:
  """Numbers of a case; latencies in seconds."""
  wall = [second for sample in samples[case] for second in sample["wall"]]
  cpu = [second for sample in samples[case] for second in sample["cpu"]]
  # What other processes take from one thread isn't in its processor time.
  latency = statistics.median(cpu if case.threads == 1 else wall)
  result = {
    **dataclasses.asdict(case),
    "wall_median": statistics.median(wall),
    "wall_p90": float(np.quantile(wall, 0.9)),
    "cpu_median": statistics.median(cpu),
    "latency": latency,
    "runs": len(wall),
    "macs": macs,
    "ns_per_mmac": latency * 1e9 / (macs / 1e6),
    "file_bytes": path.stat().st_size,
    "peak_bytes": samples[case][-1]["peak"],
  }
  peers = {
    "to_fp32": dataclasses.replace(case, precision="fp32"),
    "to_mobilenetv2": dataclasses.replace(case, model="mobilenetv2"),
  }
  for name, peer in peers.items():
    if peer in samples:
      result[name] = _ratio(samples[case], samples[peer], case.threads)
  return result


def _ratio(
  ours: Sequence[dict[str, Any]],
  theirs: Sequence[dict[str, Any]],
  threads: int,
) -> float:
  """Median over the rounds of one round's ratio of medians."""
  clock = "cpu" if threads == 1 else "wall"
  return statistics.median(
    statistics.median(a[clock]) / statistics.median(b[clock])
    for a, b in zip(ours, theirs, strict=True)
  )


_COLUMNS = (
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
    rows.append(
      (
        *(str(r[k]) for k in ("model", "engine", "precision", "threads")),
        *milliseconds,
        f"{r['macs'] / 1e6:.0f}",
        f"{r['ns_per_mmac']:.0f}",
        *ratios,
        f"{r['file_bytes'] / 1e6:.2f}",
        f"{r['peak_bytes'] / 1e6:.0f}" if r["peak_bytes"] else "",
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(width) if index < 3 else cell.rjust(width)
      for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  )


_TIMES = ("wall_median", "wall_p90", "cpu_median")
_RATIOS = ("to_fp32", "to_mobilenetv2")
