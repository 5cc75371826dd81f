"""What an export takes from the run whose weights it writes."""

import argparse

import cv2
import numpy as np
import pytest

from mobilevit_jax import experiment
from mobilevit_jax.data.transforms import segment
from mobilevit_jax.export import __main__ as command
from mobilevit_jax.export import nms
from mobilevit_jax.export import views
from mobilevit_jax.weights.source import FoundWeights

DIGITS = {"name": "digits", "dir": None, "train_split": "train"}


def _run(**fields):
  """A run's folder as it is read, without its tensors."""
  config = {"data": DIGITS, "task": {"name": "classify"}} | fields.pop(
    "config", {}
  )
  tensors = {"stem/conv/kernel": np.zeros(1)}
  return FoundWeights("run", tensors, config=config, **fields)


def _flags(**fields):
  return argparse.Namespace(**{"size": None, "preset": None, **fields})


def test_calibration_sees_training_images_alone():
  source = views.training_source(_run())
  assert source.name == "digits/train"
  kind = experiment.TASKS["classify"]
  view = views.View(kind.transform(), 16)
  images = view.of_source(source)
  assert images.shape == (256, 16, 16, 3) and images.dtype == np.uint8
  # Evenly spread, and as evaluation crops them.
  expected = kind.transform().evaluate(source[1437 // 256], 16)["images"]
  np.testing.assert_array_equal(images[1], expected)


def test_training_images_that_are_not_known_or_gone_are_asked_for(tmp_path):
  gone = {"data": DIGITS | {"name": "folder", "dir": str(tmp_path / "no")}}
  for found in (_run(config=gone), FoundWeights("w.npz", {})):
    with pytest.raises(ValueError, match="name some by --calibration_images"):
      views.training_source(found)


def test_size_crop_and_suppression_are_the_runs():
  crop = {"preset": "cvnets", "size": 96, "resize_size": 110}
  view = command._view(_flags(), _run(crop=crop), experiment.TASKS["classify"])
  assert view.preprocessing()["shorter_side"] == 110
  assert view.size == 96
  detector = experiment.TASKS["detect"]
  view = command._view(_flags(), _run(crop={"size": 224}), detector)
  assert view.preprocessing() == {
    "resize": "stretch",
    "size": 224,
    "interpolation": "bilinear",
    "antialias": False,
  }
  assert command._view(_flags(), _run(), detector).size == 320
  assert command._view(_flags(size=96), _run(), detector).size == 96
  with pytest.raises(ValueError, match="--preset=hf is a classifier's crop"):
    command._view(_flags(preset="hf"), _run(), detector)
  task = {"name": "detect", "loss_groups": 4, "threshold": 0.2, "most": 7}
  found = command._suppression(_run(config={"task": task}))
  assert found == nms.Suppression(threshold=0.2, most=7)


def test_a_segmenters_images_are_stretched_whatever_the_protocol(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
  cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
  for protocol in segment.PROTOCOLS:
    transform = segment.SegmentTransform(protocol=protocol)
    view = views.View(transform, 32)
    assert view.preprocessing()["resize"] == "stretch"
    (found,) = view.of_files([tmp_path])
    np.testing.assert_array_equal(found, cv2.resize(image, (32, 32)))


def test_an_image_that_cannot_be_read_is_named(tmp_path):
  (tmp_path / "a.png").write_bytes(b"no image")
  view = views.View(experiment.TASKS["detect"].transform(), 32)
  with pytest.raises(ValueError, match=r"a\.png"):
    view.of_files([tmp_path])
