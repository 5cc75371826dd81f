"""Nets with the same random weights: ours, timm's and transformers'."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from mobilevit_jax import create_model
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import save_weights

VARIANTS = ("mobilevit_xxs", "mobilevit_xs", "mobilevit_s")


@dataclasses.dataclass
class Nets:
  """One set of weights in three implementations.

  Attributes:
    ours: loaded from timm's tensors.
    timm: whose every tensor was drawn at random.
    hf_folder: transformers' folder, written from ours.
  """

  name: str
  ours: Any
  timm: Any
  hf_folder: Any

  def hf(self, output_stride: int = 32) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileViTConfig.from_pretrained(
      self.hf_folder, output_stride=output_stride
    )
    net, report = transformers.MobileViTForImageClassification.from_pretrained(
      self.hf_folder, config=config, output_loading_info=True
    )
    assert not any(report.values()), report
    return net.eval()


def randomise(net: Any, seed: int, last: Any) -> None:
  """Draws every parameter and statistic: timm starts some scales at zero.

  `last` is the net's last layer, which gives logits of a trained net's size.

  Statistics lie near those of real activations: others would let the signal
  fade or explode on its way, and an input that has faded hides every mistake.
  """
  import torch

  rng = np.random.default_rng(seed)

  def draw(centre: float, spread: float, value: Any) -> Any:
    noise = rng.normal(centre, spread, tuple(value.shape))
    return torch.from_numpy(np.asarray(noise)).to(value.dtype)

  for name, value in net.named_parameters():
    if value.ndim > 1:
      value.copy_(draw(0, np.prod(value.shape[1:]) ** -0.5, value))
    else:
      value.copy_(draw(1 if name.endswith("weight") else 0, 0.2, value))
  norms: list[Any] = [
    m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)
  ]
  for norm in norms:
    norm.momentum = 1.0
  pixels = torch.from_numpy(np.moveaxis(picture(96, 96, 8), -1, 1).copy())
  net.train()(pixels)
  for norm in norms:
    norm.running_mean.add_(draw(0, 0.2, norm.running_mean))
    norm.running_var.mul_(draw(1, 0.2, norm.running_var).clip(0.4, 2))
  # Logits of a trained net's size: the tolerance on them is absolute.
  logits = net.eval()(pixels)
  spread = getattr(logits, "logits", logits).std()
  for value in last.parameters():
    value.div_(spread)


def picture(height: int, width: int, batch: int = 2) -> np.ndarray:
  """RGB in [0, 1]: coloured patches under noise.

  (Nets average noise alone away.)
  """
  rng = np.random.default_rng([height, width])
  patches = rng.random((batch, 5, 5, 3), np.float32)
  rows = np.arange(height) * 5 // height
  columns = np.arange(width) * 5 // width
  noise = rng.random((batch, height, width, 3), np.float32)
  colour = rng.random((batch, 1, 1, 3), np.float32)
  smooth = (patches[:, rows][:, :, columns] + colour) / 2
  return (3 * smooth + noise) / 4


@pytest.fixture(scope="session", params=VARIANTS)
def nets(request, tmp_path_factory) -> Nets:
  timm = pytest.importorskip("timm")
  pytest.importorskip("transformers")
  import safetensors.torch
  import torch

  name = request.param
  net = timm.create_model(name)
  with torch.no_grad():
    randomise(net, VARIANTS.index(name), net.head.fc)
  folder = tmp_path_factory.mktemp(name)
  file = folder / "timm.safetensors"
  safetensors.torch.save_file(net.state_dict(), file)
  ours = load_weights(create_model(name), file)
  save_weights(ours, folder / "hf", to="hf")
  return Nets(name, ours, net, folder / "hf")


@pytest.fixture
def record(record_property):
  """Notes a difference for the table that ends the run."""

  def note(what: str, difference: float) -> None:
    # A property of the test's report: it reaches the process that prints.
    record_property(what, float(difference))

  return note


def pytest_terminal_summary(terminalreporter) -> None:
  """Prints the table of agreement, as measured in this run."""
  worst: dict[str, float] = {}
  for outcome in ("passed", "failed"):
    for report in terminalreporter.stats.get(outcome, ()):
      for what, difference in report.user_properties:
        worst[what] = max(worst.get(what, 0.0), difference)
  if worst:
    terminalreporter.section("largest differences")
  for what, difference in sorted(worst.items()):
    terminalreporter.write_line(f"{what:<60} {difference:.1e}")


@pytest.fixture
def images():
  """Draws images `[b, h, w, 3]`."""
  return picture


@pytest.fixture(scope="session")
def to_torch():
  """`[b, h, w, 3]` RGB to PyTorch's `[b, 3, h, w]`, BGR on request."""
  torch = pytest.importorskip("torch")

  def convert(images: np.ndarray, bgr: bool = False) -> Any:
    channels = images[..., ::-1] if bgr else images
    return torch.from_numpy(np.moveaxis(channels, -1, 1).copy())

  return convert


@pytest.fixture(scope="session")
def nhwc():
  """PyTorch's `[b, c, h, w]` to a numpy array like ours."""

  def convert(tensor: Any) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 1, -1)

  return convert


@pytest.fixture(autouse=True, scope="session")
def _one_platform():
  # Agreement to 1e-5 is a statement about float32 on CPU.
  if jax.default_backend() != "cpu":
    pytest.skip("the agreement is measured on CPU")
