"""Trains torchvision's SSDLite on the batches that one of our runs had.

    python -m tests.parity.detection RUN [--steps=N]

The net is ssdlite320_mobilenet_v3_large without weights, the loss is
torchvision's own. Images, their order and augmentation, learning rates, decay
and the average of the weights are the run's, on as many threads as there are
cores. Prints a line each time that the run evaluated: the average precision of
the raw and the averaged weights on the run's held-out images, by one meter.
"""

import argparse
import json
import os
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np
import torch
import torchvision

from mobilevit_jax import experiment
from mobilevit_jax.config import CONFIG_FILE


class Yardstick:
  """torchvision's net with AdamW and an average of its weights."""

  def __init__(self, num_classes: int, size: int, decay: float):
    make = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    fields: dict[str, Any] = {"weights": None, "weights_backbone": None}
    self.nets = [make(num_classes=num_classes + 1, **fields) for _ in range(2)]
    self.raw, self.ema = self.nets
    self.ema.load_state_dict(self.raw.state_dict())
    for net in self.nets:
      net.transform.fixed_size = (size, size)
      net.to(memory_format=torch.channels_last)
    self._adamw = torch.optim.AdamW(self.raw.parameters(), weight_decay=decay)

  def step(self, batch: Any, rate: float, momentum: float) -> float:
    """One update on a batch of ours; its loss."""
    self.raw.train()
    size = batch["images"].shape[1]
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
    loss = sum(self.raw(_pixels(batch["images"]), targets).values())
    for group in self._adamw.param_groups:
      group["lr"] = rate
    self._adamw.zero_grad()
    loss.backward()
    self._adamw.step()
    ema, raw = self.ema.state_dict(), self.raw.state_dict()
    with torch.no_grad():
      for name, value in raw.items():
        if value.is_floating_point():
          ema[name].lerp_(value, momentum)
        else:  # BatchNorm's counters of batches
          ema[name].copy_(value)
    return loss.item()


def _pixels(images: np.ndarray) -> list[torch.Tensor]:
  floats = np.moveaxis(images, -1, 1).astype(np.float32) / 255
  return list(torch.from_numpy(floats))


def judge(net: Any, evaluation: experiment.Evaluation) -> dict[str, float]:
  """COCO's numbers of a net of torchvision, by our pipeline and meter."""
  net.eval()
  meter = evaluation.task.meter(evaluation.source)
  size = evaluation.size
  with torch.no_grad():
    for index in range(len(evaluation.source)):
      example = evaluation.transform.decode(evaluation.source[index])
      images = evaluation.transform.evaluate(example, size)["images"]
      (found,) = net(_pixels(images[None]))
      meter.add(
        {
          "ids": np.array([index]),
          "sizes": np.array([example.image.shape[:2]]),
          "boxes": found["boxes"].numpy()[None] / size,
          "scores": found["scores"].numpy()[None],
          "classes": found["labels"].numpy()[None] - 1,
        }
      )
  return meter.result()


def train(run: pathlib.Path, num_steps: int | None) -> None:
  """Trains it, and prints a line an evaluation of the run."""
  text = (run / CONFIG_FILE).read_text(encoding="utf-8")
  record = json.loads(text)
  record.pop("version", None)
  setup = experiment.build(ml_collections.ConfigDict(record))
  evaluation, plan = setup.evaluation, setup.plan
  torch.set_num_threads(os.cpu_count() or 1)
  torch.manual_seed(record["seed"])
  (size,) = {size for size, _ in plan.shapes}
  net = Yardstick(
    evaluation.task.num_classes, size, record["optim"]["weight_decay"]
  )
  begin, images, losses = time.monotonic(), 0, []
  batches = setup.batches(0)
  for step in range(num_steps or plan.num_steps):
    batch = next(batches)
    rate = float(setup.recipe.schedule(step))
    momentum = float(setup.recipe.ema_momentum(step))
    losses.append(net.step(batch, rate, momentum))
    images += len(batch["images"])
    done = step + 1
    if done in setup.cadence.evaluate_after or done == plan.num_steps:
      line: dict[str, Any] = {
        "step": done,
        "images": images,
        "seconds": round(time.monotonic() - begin),
        "loss": round(float(np.mean(losses)), 4),
      }
      for name, judged in (("raw", net.raw), ("ema", net.ema)):
        found = judge(judged, evaluation)
        line |= {f"{name}_{n}": round(found[n], 4) for n in ("map_50", "map")}
      print(json.dumps(line), flush=True)
      losses = []
  batches.close()


def main() -> None:
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("run", type=pathlib.Path, help="workdir of a detector")
  parser.add_argument("--steps", type=int, help="stop early, to try it")
  args = parser.parse_args()
  train(args.run, args.steps)


if __name__ == "__main__":
  main()
