"""Preset pixels equal transformers' processor and timm's transform."""

import pathlib

import numpy as np
from PIL import Image
import pytest

from mobilevit_jax import models
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.weights import hf_config

torch = pytest.importorskip("torch")
timm_data = pytest.importorskip("timm.data")
transformers = pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytestmark = pytest.mark.parity

PHOTOS = pathlib.Path(__file__).resolve().parents[3] / "shared/data/photos"
SHAPES = (
  (480, 640),
  (641, 333),
  (256, 256),
  (300, 301),
  (97, 200),
  (288, 900),
  (319, 500),
)
TOLERANCE = 2  # of 255 levels


@pytest.fixture(params=("hf", "timm"))
def reference(request):
  """The preset, and the library's own pixels as RGB levels `[h, w, 3]`."""
  if request.param == "timm":
    transform = timm_data.create_transform(
      input_size=(3, 256, 256),
      interpolation="bicubic",
      mean=(0, 0, 0),
      std=(1, 1, 1),
      crop_pct=0.9,
    )
    return "timm", lambda image: _levels(transform(image))
  documents = hf_config.documents(
    "mobilevit_s", models.abstract_model("mobilevit_s"), None
  )
  fields = documents["preprocessor_config.json"]
  processor = transformers.MobileViTImageProcessor.from_dict(fields)

  def process(image):
    pixels = processor(image, return_tensors="pt")["pixel_values"][0]
    return _levels(pixels)[..., ::-1]  # the processor gives BGR

  return "hf", process


def _levels(pixels) -> np.ndarray:
  return np.moveaxis(pixels.numpy(), 0, -1) * 255


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_generated_images(reference, record, shape):
  preset, process = reference
  rng = np.random.default_rng(shape)
  coarse = rng.integers(0, 256, (9, 9, 3), np.uint8)
  image = np.asarray(
    Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.NEAREST)
  )
  ours = presets.preprocess(image, preset)
  assert ours.shape == (256, 256, 3)
  difference = np.abs(ours - process(Image.fromarray(image))).max()
  record(f"preset {preset}, generated images: levels of 255", difference)
  assert difference <= TOLERANCE + 1e-3


def test_photographs(reference, record):
  preset, process = reference
  files = sorted(PHOTOS.glob("*.jpg"))
  if not files:
    pytest.skip("no photographs here")
  shapes = set()
  for file in files:
    image = Image.open(file).convert("RGB")
    shapes.add(image.size)
    ours = presets.preprocess(file.read_bytes(), preset, name=file.name)
    difference = np.abs(ours - process(image)).max()
    record(f"preset {preset}, photographs: levels of 255", difference)
    assert difference <= TOLERANCE + 1e-3, file.name
  assert len(shapes) > 5


def test_opencv_resizes_otherwise():
  # Why `cvnets` is a preset of its own, and what the documentation says.
  image = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
  cvnets = presets.preprocess(image, "cvnets").astype(int)
  assert np.abs(cvnets - presets.preprocess(image, "hf")).max() > 20
