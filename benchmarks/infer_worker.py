"""One file in one engine, in a process of its own: `infer` starts these.

It imports nothing of the package but the file that suppresses boxes on a phone,
so its memory is that of the engine and the file. Told a number on standard
input, it runs the file so often and answers a line of JSON: the seconds, and
the processor's seconds, of each run.
"""

from collections.abc import Callable
import importlib
import importlib.util
import json
import os
import pathlib
import re
import sys
import time
from typing import Any

import numpy as np

Run = Callable[..., Any]

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def _litert(
  path: str, images: np.ndarray, threads: int, suppression: Any
) -> Run:
  litert = importlib.import_module("ai_edge_litert.interpreter")
  engine = litert.Interpreter(model_path=path, num_threads=threads)
  engine.allocate_tensors()
  (found,), outputs = engine.get_input_details(), engine.get_output_details()

  # Copies in, runs, copies out: what an app would do.
  def run() -> list[np.ndarray]:
    engine.set_tensor(found["index"], images)
    engine.invoke()
    return [engine.get_tensor(output["index"]) for output in outputs]

  if suppression is None:
    return run
  # The one file that an app copies; it needs NumPy alone.
  path = str(_ROOT / "mobilevit_jax" / "export" / "nms.py")
  spec: Any = importlib.util.spec_from_file_location("nms", path)
  nms: Any = sys.modules.setdefault(
    "nms", importlib.util.module_from_spec(spec)
  )
  spec.loader.exec_module(nms)
  how = nms.Suppression(**suppression)

  def detect() -> Any:
    boxes, scores = run()  # in the file's order
    return nms.suppress(boxes[0], scores[0], how)

  return detect


def _onnx(path: str, images: np.ndarray, threads: int, suppression: Any) -> Run:
  del suppression  # in the file
  onnxruntime = importlib.import_module("onnxruntime")
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  # One operator at a time, on all the threads that it may use.
  session = onnxruntime.InferenceSession(
    path, options, providers=["CPUExecutionProvider"]
  )
  return lambda: session.run(None, {"images": images})


def _jax(path: str, images: np.ndarray, threads: int, suppression: Any) -> Run:
  del suppression  # in the program
  del threads  # XLA takes the processors that it may run on
  import jax
  from jax import export

  exported = export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
  call, on_device = jax.jit(exported.call), jax.device_put(images)
  return lambda: jax.tree.map(np.asarray, call(on_device))


def _torch(
  path: str, images: np.ndarray, threads: int, suppression: Any
) -> Run:
  """PyTorch's own net, eager and channels last; the file holds its name."""
  torch: Any = importlib.import_module("torch")
  torch.set_num_threads(threads)
  torch.manual_seed(0)
  name = pathlib.Path(path).read_text()
  # PyTorch's layout is [b, c, h, w], in channels-last order in memory.
  pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
  net, finish = _TORCH[name](pixels, suppression)
  net = net.eval().to(memory_format=torch.channels_last)
  pixels = pixels.contiguous(memory_format=torch.channels_last)

  def run() -> Any:
    with torch.inference_mode():
      return finish(net(pixels))

  return run


def _transformers(pixels: Any, suppression: Any) -> tuple[Any, Run]:
  """MobileViT-XXS with DeepLabv3 as Apple published it; a class a pixel."""
  del suppression
  transformers: Any = importlib.import_module("transformers")
  functional: Any = importlib.import_module("torch.nn.functional")
  size = tuple(pixels.shape[2:])
  config = transformers.MobileViTConfig(
    image_size=size[0],
    hidden_sizes=[64, 80, 96],
    neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320],
    expand_ratio=2.0,
    output_stride=16,
    num_labels=21,
  )
  net = transformers.MobileViTForSemanticSegmentation(config)

  def finish(found: Any) -> Any:
    logits = functional.interpolate(found.logits, size, mode="bilinear")
    return logits.argmax(1)

  return net, finish


def _torchvision(pixels: Any, suppression: Any) -> tuple[Any, Run]:
  """SSDLite on MobileNetV3-Large at 320 pixels, for 80 classes.

  As many boxes compete as in ours (see `infer`), whose number decides how long
  suppression takes: the threshold is the score of the box of that place.
  """
  torch: Any = importlib.import_module("torch")
  detection: Any = importlib.import_module("torchvision.models.detection")
  net = detection.ssdlite320_mobilenet_v3_large(
    weights=None,
    weights_backbone=None,
    num_classes=81,
    nms_thresh=suppression["nms_iou"],
    detections_per_img=suppression["most"],
    topk_candidates=suppression["per_class"],
  )
  with torch.inference_mode():
    # Statistics of noise: with those of no images, drawn weights give the same
    # score to every box.
    for part in net.modules():
      if isinstance(part, torch.nn.BatchNorm2d):
        part.momentum = None  # the mean over batches
    noise = torch.rand((4, 3, 320, 320), generator=torch.manual_seed(0))
    net.head([*net.backbone(noise).values()])
    net.eval()
    images, _ = net.transform(list(pixels), None)
    features = [*net.backbone(images.tensors).values()]
    logits = net.head(features)["cls_logits"]
    scores = logits.softmax(-1)[..., 1:].flatten()
    net.score_thresh = scores.topk(suppression["candidates"]).values[-1].item()
  return net, lambda found: found


_TORCH = {"transformers": _transformers, "torchvision": _torchvision}
ENGINES = {"litert": _litert, "onnx": _onnx, "jax": _jax, "torch": _torch}


def main() -> None:
  """Arguments: engine, file, image side, threads, suppression in JSON."""
  engine, path, size, threads, suppression = sys.argv[1:]
  # Pinned before the engine starts its threads.
  allowed = sorted(os.sched_getaffinity(0))[: int(threads)]
  os.sched_setaffinity(0, allowed)
  shape = 1, int(size), int(size), 3
  images = np.random.default_rng(0).random(shape, np.float32)
  run = ENGINES[engine](path, images, int(threads), json.loads(suppression))
  # The first run allocates, and in JAX compiles.
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
