"""The nets of PyTorch that inference and a detector's step are held against."""

import importlib

import numpy as np
import pytest

from benchmarks import infer_worker
from benchmarks import jax_step

pytestmark = pytest.mark.parity

HOW = {"threshold": 0.5, "per_class": 400, "nms_iou": 0.5, "most": 200}


@pytest.fixture
def image():
  return np.random.default_rng(0).random((1, 128, 128, 3), np.float32)


def test_transformers_segmenter_has_our_parameters(
  tmp_path, image, monkeypatch
):
  pytest.importorskip("transformers")
  made = {}

  def keep(pixels, suppression):
    made["net"], finish = infer_worker._transformers(pixels, suppression)
    return made["net"], finish

  monkeypatch.setitem(infer_worker._TORCH, "transformers", keep)
  (tmp_path / "net").write_text("transformers")
  run = infer_worker.ENGINES["torch"](str(tmp_path / "net"), image, 1, None)
  found = run()
  assert tuple(found.shape) == (1, 128, 128)  # a class for each pixel
  count = sum(p.numel() for p in made["net"].parameters())
  assert count == 1_854_853


def test_torchvisions_detector_lets_as_many_boxes_compete(tmp_path, image):
  pytest.importorskip("torchvision")
  (tmp_path / "net").write_text("torchvision")
  how = {**HOW, "candidates": 50}
  run = infer_worker.ENGINES["torch"](str(tmp_path / "net"), image, 1, how)
  (found,) = run()
  assert 0 < len(found["scores"]) < 50


def test_a_detectors_step_is_torchvisions_loss():
  pytest.importorskip("torchvision")
  torch = importlib.import_module("torch")
  from benchmarks import torch_step
  from benchmarks import train

  torch.manual_seed(0)
  batch = jax_step.random_boxes(128, 2, 80)
  work = torch_step.detection(batch, 80)
  step = torch_step.TorchStep(work, dtype="float32", **train.RECIPE)
  assert 0 < step.first_loss < 100
  step.run(1)
  assert step.loss != step.first_loss
