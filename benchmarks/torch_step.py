"""The train step of `steps.py` in PyTorch, on timm's net, to compare with."""

import contextlib
import importlib
import os
import time
from typing import Any

import numpy as np


class TorchStep:
  """Forward, backward, AdamW and EMA as `steps.train_step` does them.

  Channels last, PyTorch's fused AdamW, dropout where ours has it, autocast
  where the compute type is bfloat16. On the GPU where PyTorch sees one, with
  float32 products in TF32, as JAX's are by default.

  Args:
    name: of the model, such as `"mobilevit_s"`.
    images: uint8 `[b, h, w, 3]`.
    labels: int `[b]`.
    num_classes: outputs of the classifier.
    dropout: rate in the transformer blocks.
    classifier_dropout: rate before the classifier.
    dtype: `"float32"` or `"bfloat16"`.
    label_smoothing: of the loss.
    optimizer: keyword arguments of AdamW.
    ema_momentum: share of the new weights in their average.
    compiled: through `torch.compile`.
  """

  def __init__(
    self,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    dropout: float,
    classifier_dropout: float,
    dtype: str,
    label_smoothing: float,
    optimizer: dict[str, Any],
    ema_momentum: float,
    compiled: bool = False,
  ):
    # By name, so that a type checker without PyTorch has nothing to miss.
    torch: Any = importlib.import_module("torch")
    timm: Any = importlib.import_module("timm")
    self._torch = torch
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    if self._device == "cuda":
      torch.set_float32_matmul_precision("high")
    else:
      # As many as XLA takes: the cores that `taskset` leaves us.
      torch.set_num_threads(len(os.sched_getaffinity(0)))
    net = timm.create_model(
      name, num_classes=num_classes, drop_rate=classifier_dropout
    )
    for path, module in net.named_modules():
      if path.endswith(("attn.proj_drop", "mlp.drop2")):
        module.p = dropout
    net = net.to(self._device, memory_format=torch.channels_last).train()
    self._params = list(net.parameters())
    self._ema = [param.detach().clone() for param in self._params]
    self._ema_momentum = ema_momentum
    self._optimizer = torch.optim.AdamW(self._params, fused=True, **optimizer)
    self._loss = torch.nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    self._images = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).to(
      self._device, memory_format=torch.channels_last
    )
    self._labels = torch.from_numpy(labels.astype(np.int64)).to(self._device)
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
        logits = self._net(self._images.float() / 255)
      loss = self._loss(logits.float(), self._labels)
      self._optimizer.zero_grad()
      loss.backward()
      self._optimizer.step()
      with self._torch.no_grad():
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
