"""Files written by one side are read by the other."""

import pathlib
import pickle

import numpy as np
import pytest

from mobilevit_jax import config
from mobilevit_jax import create_model
from mobilevit_jax.weights import __main__ as weights_command
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import source
from mobilevit_jax.weights import trees

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

NAME = "mobilevit_xxs"


@pytest.fixture(scope="module")
def model():
  return create_model(NAME, num_classes=5)


@pytest.mark.parametrize(
  ("ending", "wrapper"),
  (("pt", None), ("pth", "state_dict"), ("bin", "model_state_dict")),
)
def test_pytorch_files(model, tmp_path, ending, wrapper):
  save_weights(model, tmp_path / "w.safetensors", to="cvnets")
  tensors = safetensors_torch.load_file(tmp_path / "w.safetensors")
  path = tmp_path / f"w.{ending}"
  torch.save({wrapper: tensors} if wrapper else tensors, path)
  loaded = load_weights(create_model(NAME, num_classes=5, seed=1), path)
  expected = trees.flat_model(model)
  for name, value in trees.flat_model(loaded).items():
    np.testing.assert_array_equal(value, expected[name], name)


@pytest.fixture(scope="module")
def tensors(model, tmp_path_factory):
  path = tmp_path_factory.mktemp("tensors") / "w.safetensors"
  save_weights(model, path, to="cvnets")
  return safetensors_torch.load_file(path)


def test_parameters_and_bfloat16_are_read(model, tensors, tmp_path):
  held = {
    name: torch.nn.Parameter(value.bfloat16())
    if value.is_floating_point()
    else value
    for name, value in tensors.items()
  }
  torch.save(held, tmp_path / "w.pt")
  loaded = load_weights(create_model(NAME, num_classes=5), tmp_path / "w.pt")
  expected = trees.flat_model(model)
  for name, value in trees.flat_model(loaded).items():
    rounded = expected[name].astype("bfloat16").astype("float32")
    np.testing.assert_array_equal(value, rounded, name)


def test_of_raw_and_averaged_weights_one_is_taken_and_said(
  model, tensors, tmp_path, capsys
):
  path = tmp_path / "w.pth"
  double = {
    name: 2 * value if value.is_floating_point() else value
    for name, value in tensors.items()
  }
  torch.save({"state_dict": double, "state_dict_ema": tensors}, path)
  blank, stem = create_model(NAME, num_classes=5), "backbone/stem/norm/scale"
  expected = np.asarray(trees.flat_model(model)[stem])
  for which, factor in (("auto", 1), ("ema", 1), ("raw", 2)):
    loaded = trees.flat_model(load_weights(blank, path, which=which))
    np.testing.assert_array_equal(loaded[stem], factor * expected)
    name = "raw" if which == "raw" else r"averaged (EMA)"
    assert f"took its {name} weights" in capsys.readouterr().err
  wrapped = {f"module.{name}": value for name, value in tensors.items()}
  torch.save({"state_dict_ema": wrapped}, path)  # timm keeps its prefix
  loaded = trees.flat_model(load_weights(blank, path))
  np.testing.assert_array_equal(loaded[stem], expected)
  with pytest.raises(ValueError, match="which='raw' is not in the file"):
    load_weights(blank, path, which="raw")


# Made when they are needed: torch warns of what it has deprecated.
NO_ARRAYS = {
  "holds no tensors": lambda: {},
  "holds a NoneType": lambda: None,
  "a is on the meta device": lambda: {"a": torch.empty(3, device="meta")},
  "a is sparse": lambda: {"a": torch.eye(3).to_sparse()},
  "a is quantised": lambda: {
    "a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
  },
  "holds more than": lambda: {"a": torch.zeros(1).expand(2**33)},
  "not tensors: a": lambda: {"a": 3},
  "a tensor is called": lambda: {"\x1b[2J": torch.zeros(1)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("message", NO_ARRAYS)
def test_what_is_no_array_is_one_line(tmp_path, message):
  path = tmp_path / "w.pt"
  torch.save(NO_ARRAYS[message](), path)
  with pytest.raises(config.ForeignFileError, match=message) as refused:
    source.read_weights(path)
  assert str(refused.value).startswith(str(path))
  assert "\n" not in str(refused.value)


class Hostile:
  """Leaves a file behind when it is unpickled."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_nothing_is_run_from_a_pickle(model, tmp_path):
  trace = tmp_path / "trace"
  torch.save({"a": Hostile(trace)}, tmp_path / "new.pt")
  (tmp_path / "old.pt").write_bytes(pickle.dumps(Hostile(trace)))
  (tmp_path / "cut.pt").write_bytes((tmp_path / "new.pt").read_bytes()[:90])
  torch.save([1, 2], tmp_path / "list.pt")
  for name in ("new", "old", "cut"):
    with pytest.raises(ValueError, match="not a file of PyTorch weights"):
      load_weights(model, tmp_path / f"{name}.pt")
  with pytest.raises(ValueError, match="holds a list"):
    load_weights(model, tmp_path / "list.pt")
  assert not trace.exists()


def test_timm_reads_ours_strictly(model, tmp_path):
  save_weights(model, tmp_path / "w.safetensors", to="timm")
  tensors = safetensors_torch.load_file(tmp_path / "w.safetensors")
  net = timm.create_model(NAME, num_classes=5)
  assert net.state_dict().keys() == tensors.keys()
  net.load_state_dict(tensors, strict=True)


def test_both_open_the_folder_for_the_hub(model, tmp_path):
  save_weights(model, tmp_path / "w.safetensors", labels=list("abcde"))
  folder = tmp_path / "hub"
  words = [str(tmp_path / "w.safetensors"), str(folder), "--to=hub"]
  assert weights_command.main(words) == 0
  theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
  other, report = transformers.AutoModelForImageClassification.from_pretrained(
    folder, subfolder="transformers", output_loading_info=True
  )
  assert not any(report.values()), report
  assert other.config.id2label[4] == "e"
  images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
  pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  expected = np.asarray(model(images))
  with torch.no_grad():
    found = theirs(pixels).numpy(), other.eval()(pixels.flip(1)).logits.numpy()
  for logits in found:
    np.testing.assert_allclose(logits, expected, atol=1e-4)
  data = timm.data.resolve_data_config(model=theirs)
  assert [*data["input_size"]] == [3, 256, 256]
  assert int(256 / data["crop_pct"]) == 288
  assert data["interpolation"] == "bilinear"


def test_transformers_opens_our_folder(model, tmp_path):
  save_weights(model, tmp_path / "f", to="hf", labels=list("abcde"))
  net, report = transformers.AutoModelForImageClassification.from_pretrained(
    tmp_path / "f", output_loading_info=True
  )
  assert not any(report.values()), report
  assert net.config.id2label[4] == "e"
  processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "f")
  image = np.zeros((300, 400, 3), np.uint8)
  image[..., 0] = 255  # red
  pixels = processor(image, return_tensors="pt")["pixel_values"][0]
  assert pixels.shape == (3, 256, 256)
  assert (pixels[2] == 1).all()  # comes last
  assert (pixels[:2] == 0).all()
