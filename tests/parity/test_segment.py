"""Pixels' logits equal transformers', with the same weights."""

from flax import nnx
import jax
import numpy as np
import pytest

from mobilevit_jax import create_model
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import save_weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
SIZES = ((64, 64), (128, 128), (97, 65), (96, 160))


@pytest.fixture(scope="module", params=("xxs", "xs", "s"))
def folder(request, tmp_path_factory):
  """The variant's name, and transformers' folder of random weights."""
  from tests.parity.conftest import randomise

  name = f"mobilevit_{request.param}"
  path = tmp_path_factory.mktemp(request.param) / "hf"
  save_weights(create_model(name, "deeplabv3", num_classes=21), path, to="hf")
  net = transformers.MobileViTForSemanticSegmentation.from_pretrained(path)
  with torch.no_grad():
    last = net.segmentation_head.classifier
    randomise(net, len(name), last)
    net.save_pretrained(path)
  return name, path


@pytest.mark.parametrize("stride", (16, 8))
def test_logits(folder, images, to_torch, nhwc, record, stride):
  name, path = folder
  rates = {16: [6, 12, 18], 8: [12, 24, 36]}[stride]
  theirs, report = (
    transformers.MobileViTForSemanticSegmentation.from_pretrained(
      path,
      output_stride=stride,
      atrous_rates=rates,
      output_loading_info=True,
    )
  )
  assert not any(report.values()), report
  theirs.eval()
  empty = create_model(name, "deeplabv3", num_classes=21, output_stride=stride)
  graphdef, state = nnx.split(load_weights(empty, path))
  forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
  for height, width in SIZES:
    pixels = images(height, width)
    ours = np.asarray(forward(state, pixels))
    with torch.no_grad():
      logits = theirs(to_torch(pixels, bgr=True)).logits
    expected = nhwc(logits)
    assert ours.shape == expected.shape
    assert ours.shape[1:3] == (-(-height // stride), -(-width // stride))
    # Weights that say something, of pictures that differ.
    assert expected.std() > 0.1
    assert np.abs(expected[0] - expected[1]).max() > 1000 * TOLERANCE
    scale = max(1.0, float(np.abs(expected).max()))
    error = np.abs(ours - expected).max() / scale
    record(f"{name}, transformers: pixels at stride {stride}, relative", error)
    assert error <= TOLERANCE


@pytest.mark.parametrize("aligned", (False, True))
@pytest.mark.parametrize("size", ((64, 80), (37, 53), (3, 2)))
def test_enlarging_is_torch_own(nhwc, aligned, size):
  net = create_model("mobilevit_xxs", "deeplabv3", num_classes=5)
  net.head.aligned = aligned
  logits = np.random.default_rng(0).normal(size=(2, 4, 5, 5)).astype(np.float32)
  expected = torch.nn.functional.interpolate(
    torch.from_numpy(np.moveaxis(logits, -1, 1).copy()),
    size=size,
    mode="bilinear",
    align_corners=aligned,
  )
  found = net.head.enlarge(logits, *size)
  np.testing.assert_allclose(found, nhwc(expected), atol=2e-6)
