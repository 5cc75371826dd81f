"""MobileViTv2 equals timm's and transformers', with the same weights."""

from flax import nnx
import jax
import numpy as np
import pytest

from mobilevit_jax import create_model
from mobilevit_jax.models import mobilevit_v2
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import save_weights
from tests.parity import conftest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
ALIGNED = (128, 192)  # multiples of 64: no odd map in any stage
# Odd maps in one block, in two, and on both axes.
ODD = (96, 96), (161, 97)


@pytest.fixture(scope="module", params=mobilevit_v2.VARIANTS)
def nets(request, tmp_path_factory):
  """Ours, timm's and transformers', which reads the folder that we write."""
  folder = tmp_path_factory.mktemp(request.param)
  theirs = timm.create_model(request.param)
  with torch.no_grad():
    conftest.randomise(theirs, 1, theirs.head.fc)
  file = folder / "timm.safetensors"
  safetensors_torch.save_file(theirs.state_dict(), file)
  ours = load_weights(create_model(request.param), file)
  save_weights(ours, folder / "hf", to="hf")
  hf, report = transformers.AutoModelForImageClassification.from_pretrained(
    folder / "hf", output_loading_info=True
  )
  assert not any(report.values()), report
  graphdef, state = nnx.split(ours)
  forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))

  def run(pixels):
    tensor = torch.from_numpy(np.moveaxis(pixels, -1, 1).copy())
    with torch.no_grad():
      return (
        np.asarray(forward(state, pixels)),
        theirs(tensor).numpy(),
        hf.eval()(tensor).logits.numpy(),  # RGB, for what Apple trained on it
      )

  return request.param, run


def test_logits(nets, images, record):
  name, run = nets
  for size in (ALIGNED, *ODD):
    ours, of_timm, of_hf = run(images(*size))
    assert 0.1 < ours.std() < 50
    assert np.abs(ours[0] - ours[1]).max() > 1000 * TOLERANCE
    error = np.abs(ours - of_timm).max()
    record(f"{name}, timm: logits, absolute", error)
    assert error <= TOLERANCE
    error = np.abs(ours - of_hf).max()
    if size == ALIGNED:
      record(f"{name}, transformers: logits, absolute", error)
      assert error <= TOLERANCE
    else:
      # transformers does not enlarge an odd map: it drops the last row and
      # column, and leaves them zero.
      assert error > 1000 * TOLERANCE


def test_our_folder_tells_transformers_to_keep_rgb(tmp_path):
  save_weights(create_model("mobilevitv2_050"), tmp_path / "f", to="hf")
  processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "f")
  image = np.zeros((300, 400, 3), np.uint8)
  image[..., 0] = 255  # red
  pixels = processor(image, return_tensors="pt")["pixel_values"][0]
  assert pixels.shape == (3, 256, 256)
  assert (pixels[0] == 1).all() and (pixels[1:] == 0).all()


def test_timm_reads_ours_strictly(tmp_path):
  ours = create_model("mobilevitv2_050", num_classes=5)
  save_weights(ours, tmp_path / "w.safetensors", to="timm")
  net = timm.create_model("mobilevitv2_050", num_classes=5)
  net.load_state_dict(safetensors_torch.load_file(tmp_path / "w.safetensors"))
