"""Logits and stages equal timm's and transformers', with the same weights."""

from flax import nnx
import jax
import numpy as np
import pytest

from mobilevit_jax import create_model
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import save_weights

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
SIZES = (
  (160, 160),
  (192, 192),
  (224, 224),
  (256, 256),
  (288, 288),
  (320, 320),
  (200, 312),
  (161, 97),  # odd at the first stride already
  (34, 66),  # a last map of 2 x 3 pixels
)


@pytest.fixture(autouse=True)
def _no_grad():
  with torch.no_grad():
    yield


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_logits_and_stages(nets, images, to_torch, nhwc, record, size):
  pixels = images(*size)
  stages, logits = run(nets.ours, pixels)
  # Weights that say something, about pictures that differ.
  assert 0.1 < logits.std() < 50
  assert np.abs(logits[0] - logits[1]).max() > 1000 * TOLERANCE

  theirs = {}
  hooks = [
    stage.register_forward_hook(
      lambda _module, _inputs, output, number=number: theirs.__setitem__(
        f"stage{number}", nhwc(output)
      )
    )
    for number, stage in enumerate(nets.timm.stages, start=1)
  ]
  timm_logits = nets.timm(to_torch(pixels)).numpy()
  for hook in hooks:
    hook.remove()
  hf = nets.hf()(to_torch(pixels, bgr=True), output_hidden_states=True)

  assert len(stages) == len(theirs) == 5
  for library, their_logits, outputs in (
    ("timm", timm_logits, theirs.values()),
    ("transformers", hf.logits.numpy(), map(nhwc, hf.hidden_states)),
  ):
    error = np.abs(logits - their_logits).max()
    record(f"{nets.name}, {library}: logits, absolute", error)
    assert error <= TOLERANCE
    for ours, output in zip(stages.values(), outputs, strict=True):
      error = relative_error(ours, output)
      record(f"{nets.name}, {library}: stages, relative", error)
      assert error <= TOLERANCE


@pytest.mark.parametrize("output_stride", (16, 8))
def test_output_stride(
  nets, images, to_torch, nhwc, record, output_stride, tmp_path
):
  save_weights(nets.ours, tmp_path / "w.safetensors", to="timm")
  ours = load_weights(
    create_model(nets.name, output_stride=output_stride),
    tmp_path / "w.safetensors",
  )
  pixels = images(200, 312)
  encoder = nets.hf(output_stride).mobilevit
  hidden = encoder(to_torch(pixels, bgr=True), output_hidden_states=True)
  stages, _ = run(ours, pixels)
  height = stages["stage5"].shape[1]
  assert height == -(-200 // output_stride)
  for number, output in enumerate(stages.values()):
    error = relative_error(output, nhwc(hidden.hidden_states[number]))
    record(
      f"{nets.name}, transformers: stride {output_stride}, relative", error
    )
    assert error <= TOLERANCE


def test_channel_order_matters(nets, images, to_torch):
  # Without this, a net that ignored colour would pass the tests above.
  pixels = images(64, 64)
  right = nets.timm(to_torch(pixels)).numpy()
  wrong = nets.timm(to_torch(pixels, bgr=True)).numpy()
  assert np.abs(right - wrong).max() > 1000 * TOLERANCE


def run(model, pixels):
  """Stages and logits of ours, from one forward pass."""
  graphdef, state = nnx.split(model)
  features = type(model).features

  @jax.jit
  def forward(state, pixels):
    seen = {}

    def record(*args):
      seen.update(features(*args))
      return seen

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(type(model), "features", record)
      logits = nnx.merge(graphdef, state)(pixels)
    return seen, logits

  stages, logits = forward(state, pixels)
  return stages, np.asarray(logits)


def relative_error(ours, theirs: np.ndarray) -> float:
  """Largest difference, relative to the largest value."""
  ours = np.asarray(ours)
  assert ours.shape == theirs.shape
  return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
