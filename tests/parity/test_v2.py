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
# The last map has one patch of each place: little is averaged away.
SMALL = (64, 64)
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

  def exact(pixels):
    """What timm's net answers in float64."""
    tensor = torch.from_numpy(np.moveaxis(pixels, -1, 1).copy())
    with torch.no_grad():
      logits = theirs.double()(tensor.double()).numpy()
    theirs.float()
    return logits

  return request.param, run, exact


@pytest.mark.parametrize("nets", ["mobilevitv2_100"], indirect=True)
def test_small_images_differ_by_the_rounding_of_both(nets, images, record):
  # Of these, the logits differ by 1.2e-5 from timm's. Both are as far from
  # float64, 0.82e-5 and 0.88e-5, on different sides: it is nobody's mistake. Of
  # the other widths, measured once, none is further from timm's than 0.92e-5.
  name, run, in_float64 = nets
  (ours, of_timm, _), exact = run(images(*SMALL)), in_float64(images(*SMALL))
  errors = [np.abs(found - exact).max() for found in (ours, of_timm)]
  record(f"{name} at 64 px, timm: logits, absolute", abs(ours - of_timm).max())
  record(f"{name} at 64 px, float64: logits, absolute", errors[0])
  record(f"{name} at 64 px, timm and float64: logits, absolute", errors[1])
  assert errors[0] <= 2 * errors[1]
  # In the mean over all logits, which no single one decides.
  ours, of_timm = (np.square(x - exact).mean() ** 0.5 for x in (ours, of_timm))
  assert ours <= 1.5 * of_timm


def test_logits(nets, images, record):
  name, run, _ = nets
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
