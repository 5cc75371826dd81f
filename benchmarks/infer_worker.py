"""One file in one engine, in a process of its own: `infer` starts these.

It imports nothing of the package, so its memory is that of the engine and the
file. Told a number on standard input, it runs the file so often and answers a
line of JSON: the seconds, and the processor's seconds, of each run.
"""

from collections.abc import Callable
import importlib
import json
import os
import pathlib
import re
import sys
import time
from typing import Any

import numpy as np

Run = Callable[[], Any]


def _litert(path: str, images: np.ndarray, threads: int) -> Run:
  litert = importlib.import_module("ai_edge_litert.interpreter")
  engine = litert.Interpreter(model_path=path, num_threads=threads)
  engine.allocate_tensors()
  (found,), (output,) = engine.get_input_details(), engine.get_output_details()

  def run() -> np.ndarray:
    engine.set_tensor(found["index"], images)
    engine.invoke()
    return engine.get_tensor(output["index"])

  return run


def _onnx(path: str, images: np.ndarray, threads: int) -> Run:
  onnxruntime = importlib.import_module("onnxruntime")
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  session = onnxruntime.InferenceSession(
    path, options, providers=["CPUExecutionProvider"]
  )
  return lambda: session.run(None, {"images": images})


def _jax(path: str, images: np.ndarray, threads: int) -> Run:
  del threads  # XLA takes the processors that it may run on
  import jax
  from jax import export

  exported = export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
  call, on_device = jax.jit(exported.call), jax.device_put(images)
  return lambda: np.asarray(call(on_device))


ENGINES = {"litert": _litert, "onnx": _onnx, "jax": _jax}


def main() -> None:
  """Arguments: engine, file, image side, threads."""
  engine, path, size, threads = sys.argv[1:]
  allowed = sorted(os.sched_getaffinity(0))[: int(threads)]
  os.sched_setaffinity(0, allowed)
  shape = 1, int(size), int(size), 3
  images = np.random.default_rng(0).random(shape, np.float32)
  run = ENGINES[engine](path, images, int(threads))
  run()
  for line in sys.stdin:
    wall, cpu = [], []
    for _ in range(int(line)):
      begin, began = time.perf_counter(), time.process_time()
      run()
      cpu.append(time.process_time() - began)
      wall.append(time.perf_counter() - begin)
    answer = {"wall": wall, "cpu": cpu, "peak": _peak_bytes()}
    print(json.dumps(answer), flush=True)


def _peak_bytes() -> int | None:
  """The most memory held so far; None where the system doesn't say."""
  # Not getrusage: that counts what the starting process held, too.
  status = pathlib.Path("/proc/self/status")
  found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
  return int(found[1]) * 1024 if found else None


if __name__ == "__main__":
  main()
