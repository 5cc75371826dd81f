"""The train step of `steps.py` in PyTorch, on others' nets, to compare with."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import importlib
import os
import time
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Work:
  """What a step is made of.

  Attributes:
    net: in PyTorch.
    batch: of arrays, the images as uint8 `[b, h, w, 3]`.
    loss: the loss of the net, or of what compiling made of it, for images as
      floats in [0, 1], channels first, and the rest of the batch.
  """

  net: Any
  batch: Mapping[str, np.ndarray]
  loss: Callable[[Any, Any, Mapping[str, Any]], Any]


def classification(
  name: str,
  batch: Mapping[str, np.ndarray],
  *,
  num_classes: int,
  dropout: float,
  classifier_dropout: float,
  label_smoothing: float,
) -> Work:
  """MobileViT of that name by timm, with smoothed cross-entropy.

  Args:
    name: of the model, such as `"mobilevit_s"`.
    batch: `images` and `labels`.
    num_classes: outputs of the classifier.
    dropout: rate in the transformer blocks.
    classifier_dropout: rate before the classifier.
    label_smoothing: of the loss.
  """
  torch: Any = importlib.import_module("torch")
  timm: Any = importlib.import_module("timm")
  net = timm.create_model(
    name, num_classes=num_classes, drop_rate=classifier_dropout
  )
  # timm has one rate for all dropouts; the transformer's is set by name.
  for path, module in net.named_modules():
    if path.endswith(("attn.proj_drop", "mlp.drop2")):
      module.p = dropout
  entropy = torch.nn.CrossEntropyLoss(label_smoothing=label_smoothing)

  def loss(net: Any, images: Any, rest: Mapping[str, Any]) -> Any:
    return entropy(net(images).float(), rest["labels"].long())

  return Work(net, batch, loss)


def detection(batch: Mapping[str, np.ndarray], num_classes: int) -> Work:
  """SSDLite on MobileNetV3-Large by torchvision, with its own loss.

  Args:
    batch: `images`, `boxes` as parts of the image, `classes` and `valid`.
    num_classes: of objects.
  """
  torch: Any = importlib.import_module("torch")
  models: Any = importlib.import_module("torchvision.models.detection")
  size = batch["images"].shape[1]
  net = models.ssdlite320_mobilenet_v3_large(
    weights=None, weights_backbone=None, num_classes=num_classes + 1
  )
  # As large as ours are, and no time lost on resizing.
  net.transform.fixed_size = (size, size)
  targets = [
    {
      "boxes": torch.from_numpy(boxes[valid > 0] * size),
      # The background comes first there.
      "labels": torch.from_numpy(classes[valid > 0] + 1).long(),
    }
    for boxes, classes, valid in zip(
      *(batch[name] for name in ("boxes", "classes", "valid")), strict=True
    )
  ]

  def loss(net: Any, images: Any, rest: Mapping[str, Any]) -> Any:
    del rest
    on_device = [
      {name: value.to(images.device) for name, value in target.items()}
      for target in targets
    ]
    return sum(net(list(images), on_device).values())

  return Work(net, {"images": batch["images"]}, loss)


class TorchStep:
  """Forward, backward, AdamW and EMA as `steps.train_step` does them.

  Channels last, PyTorch's fused AdamW, dropout where ours has it, autocast
  where the compute type is bfloat16. On the GPU where PyTorch sees one, with
  float32 products in TF32, as JAX's are by default.

  Args:
    work: net, batch and loss.
    dtype: `"float32"` or `"bfloat16"`.
    optimizer: keyword arguments of AdamW.
    ema_momentum: share of the new weights in their average.
    compiled: through `torch.compile`.
  """

  def __init__(
    self,
    work: Work,
    *,
    dtype: str,
    optimizer: dict[str, Any],
    ema_momentum: float,
    compiled: bool = False,
  ):
    # Looked up at run time: this file is importable without PyTorch.
    # By name, so that a type checker without PyTorch has nothing to miss.
    torch: Any = importlib.import_module("torch")
    self._torch = torch
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    if self._device == "cuda":
      torch.set_float32_matmul_precision("high")
    else:
      # As many as XLA takes: the cores that `taskset` leaves us.
      torch.set_num_threads(len(os.sched_getaffinity(0)))
    net = work.net.to(self._device, memory_format=torch.channels_last).train()
    self._params = list(net.parameters())
    self._ema = [param.detach().clone() for param in self._params]
    self._ema_momentum = ema_momentum
    self._optimizer = torch.optim.AdamW(self._params, fused=True, **optimizer)
    self._loss = work.loss
    batch = dict(work.batch)
    # Channels first for PyTorch, stored channels last: its fast layout.
    images = np.moveaxis(batch.pop("images"), -1, 1).copy()
    self._images = torch.from_numpy(images).to(
      self._device, memory_format=torch.channels_last
    )
    self._rest = {
      name: torch.from_numpy(value).to(self._device)
      for name, value in batch.items()
    }
    self._autocast = contextlib.nullcontext()
    if dtype == "bfloat16":
      self._autocast = torch.autocast(self._device, torch.bfloat16)
    self._net = torch.compile(net) if compiled else net
    if self._device == "cuda":
      torch.cuda.reset_peak_memory_stats()
    begin = time.monotonic()
    self.run(1)
    self.first_loss = self.loss
    self.first_step_seconds = time.monotonic() - begin

  def run(self, steps: int) -> None:
    """Makes `steps` updates and waits for the last."""
    for _ in range(steps):
      with self._autocast:
        # The same forward pass, loss and division by 255 as ours.
        loss = self._loss(self._net, self._images.float() / 255, self._rest)
      self._optimizer.zero_grad()
      loss.backward()
      self._optimizer.step()
      with self._torch.no_grad():
        # lerp: average + momentum (new - average), as `optim.update_ema`.
        self._torch._foreach_lerp_(self._ema, self._params, self._ema_momentum)
    self.loss = loss.item()  # waits
    if not np.isfinite(self.loss):
      raise FloatingPointError("PyTorch's loss is not finite")

  def peak_memory(self) -> int | None:
    """Bytes that PyTorch's own allocator held at most; None on a CPU."""
    if self._device == "cuda":
      return self._torch.cuda.max_memory_allocated()
    return None

  def device_name(self) -> str:
    """Where it runs."""
    if self._device == "cuda":
      return self._torch.cuda.get_device_name()
    return f"cpu, {self._torch.get_num_threads()} thread(s)"
