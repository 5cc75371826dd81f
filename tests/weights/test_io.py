"""Loading and saving: bit-exact, strict, and safe with hostile files."""

import json
import sys
import types

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import mobilevit_jax
from mobilevit_jax import create_model
from mobilevit_jax import models
from mobilevit_jax import steps
from mobilevit_jax.models import mobilevit
from mobilevit_jax.run import checkpoint
from mobilevit_jax.weights import io
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import names
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import trees
from mobilevit_jax.weights.source import read_weights
from tests import tiny

NAME, CLASSES = "mobilevit_xxs", 7
STEM = "backbone/stem/conv/kernel"


@pytest.fixture(scope="module")
def model():
  return create_model(NAME, num_classes=CLASSES, seed=3)


@pytest.fixture(scope="module")
def blank():
  return create_model(NAME, num_classes=CLASSES, seed=4)


@pytest.fixture
def timm_file(model, tmp_path):
  path = tmp_path / "timm.safetensors"
  save_weights(model, path, to="timm")
  return path


def random_weights(model: models.Net) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    path: rng.random(leaf.shape, np.float32) + 0.5
    for path, leaf in trees.flat_model(model).items()
  }


def rewrite(path, change) -> None:
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


# All of the paper's, and of every other family its first.
FIRST = [next(iter(f.variants)) for f in tiny.published_families().values()]


@pytest.mark.parametrize("name", {**mobilevit.VARIANTS, **dict.fromkeys(FIRST)})
def test_round_trip_is_exact(name, tmp_path):
  net = models.abstract_model(name)
  weights, rows = random_weights(net), names.table(net)
  # The newest names of cvnets are those of segmenters alone.
  spoken = [d for d in names.DIALECTS[:4] if all(all(r.names(d)) for r in rows)]
  assert {"jax", "cvnets"} <= {*spoken}
  for dialect in spoken:
    path = (
      tmp_path / f"{dialect}.{'npz' if dialect == 'jax' else 'safetensors'}"
    )
    io.write(weights, net, path, to=dialect)
    found = read_weights(path)
    said = {} if path.suffix == ".npz" else {"output_stride": 32}
    assert io.find_model(found) == said | {
      "name": name,
      "head": "classifier",
      "num_classes": 1000,
    }
    back = io.decode(found.tensors, net, name="w")
    assert back.keys() == weights.keys()
    for key, value in weights.items():
      assert back[key].dtype == value.dtype
      np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_load_gives_a_copy(model, blank, timm_file):
  before = trees.flat_model(blank)
  loaded = trees.flat_model(load_weights(blank, timm_file))
  for path, value in trees.flat_model(model).items():
    np.testing.assert_array_equal(loaded[path], value)
  kernel = trees.flat_model(blank)[STEM]
  assert kernel is before[STEM]
  assert not np.array_equal(kernel, loaded[STEM])


def test_a_bgr_dialect_swaps_the_first_convolution(model, tmp_path):
  for dialect, swapped in (("timm", False), ("cvnets", True), ("hf", True)):
    save_weights(model, tmp_path / f"{dialect}.safetensors", to=dialect)
    tensors = safetensors.numpy.load_file(tmp_path / f"{dialect}.safetensors")
    stem = {row.path: row for row in names.table(model)}[STEM]
    saved = tensors[stem.names(dialect)[0]][:, :: -1 if swapped else 1]
    ours = np.asarray(model.backbone.stem.conv.kernel[...]).transpose(
      3, 2, 0, 1
    )
    np.testing.assert_array_equal(saved, ours)


def test_every_mismatch_is_listed(blank, timm_file):
  def spoil(tensors):
    del tensors["stem.bn.bias"]
    tensors["surplus"] = np.zeros(3, np.float32)
    tensors["head.fc.bias"] = np.zeros(9, np.float32)
    tensors["stem.bn.weight"][0] = np.nan
    tensors["stem.bn.running_var"][:] = -1
    tensors["stem.bn.running_mean"] = np.zeros(16, np.int64)

  rewrite(timm_file, spoil)
  with pytest.raises(ValueError) as error:
    load_weights(blank, timm_file)
  text = str(error.value)
  assert "timm names) does not fit the model in 6 tensors" in text
  for line in (
    "missing: stem.bn.bias [16]",
    "extra: surplus [3]",
    "shape: head.fc.bias is [9], not [7]",
    "values: stem.bn.weight holds NaN",
    "values: stem.bn.running_var holds negative",
    "type: stem.bn.running_mean is int64",
  ):
    assert line in text


def _same(loaded, origin) -> set[str]:
  """Paths of the tensors that both nets share."""
  theirs = trees.flat_model(origin)
  return {
    path
    for path, value in trees.flat_model(loaded).items()
    if np.array_equal(value, theirs.get(path))
  }


def test_reset_leaves_what_follows_the_classes_or_the_head(
  model, timm_file, tmp_path
):
  # Another seed, so that no kernel is equal by chance; a row each of random
  # values, since first norms and biases are all alike.
  net = models.abstract_model(NAME, num_classes=CLASSES)
  io.write(random_weights(net), net, tmp_path / "w.npz", to="cvnets")
  start = create_model(NAME, num_classes=CLASSES, seed=5)
  paths = set(trees.flat_model(model))
  expected = {
    "none": set(),
    "classifier": {"head/classifier/kernel", "head/classifier/bias"},
    "head": {path for path in paths if path.startswith("head/")},
  }
  for reset, own in expected.items():
    loaded = load_weights(start, tmp_path / "w.npz", reset=reset)
    assert _same(loaded, start) == own, reset
  other = create_model(NAME, num_classes=3, seed=5)
  with pytest.raises(ValueError, match="in 2 tensors"):
    load_weights(other, timm_file)
  for reset in ("classifier", "head"):
    load_weights(other, timm_file, reset=reset)
  # What is loaded must be whole, and what is left out must be known.
  rewrite(timm_file, lambda tensors: tensors.pop("final_conv.bn.bias"))
  with pytest.raises(ValueError, match=r"missing: final_conv\.bn\.bias"):
    load_weights(other, timm_file, reset="classifier")
  load_weights(other, timm_file, reset="head")
  rewrite(timm_file, lambda tensors: tensors.update(more=np.zeros(3)))
  with pytest.raises(ValueError, match=r"in 1 tensors:\n  extra: more \[3\]"):
    load_weights(other, timm_file, reset="head")


def test_old_and_unknown_resets_are_refused(model, timm_file):
  with pytest.raises(ValueError, match="head='reset' is reset='classifier'"):
    load_weights(model, timm_file, head="reset")
  with pytest.raises(ValueError, match="reset='all' must be one of none, cl"):
    load_weights(model, timm_file, reset="all")


class Other(models.HEADS["classifier"]):
  """A head whose tensors no other project has."""

  CLASSIFIERS = ()

  def __init__(self, backbone, **fields):
    super().__init__(backbone, **fields)
    self.more = nnx.Param(jnp.zeros(3))


def test_another_head_needs_reset(model, timm_file, tmp_path, monkeypatch):
  monkeypatch.setitem(models.HEADS, "other", Other)
  net = create_model(NAME, "other")
  save_weights(model, tmp_path / "ours.npz")
  save_weights(net, tmp_path / "other.npz")
  with pytest.raises(ValueError, match=r"head 'classifier', and .* 'other'"):
    load_weights(net, timm_file)
  for source in (timm_file, tmp_path / "ours.npz"):
    loaded = load_weights(net, source, reset="head")
    assert _same(loaded, net) >= {"head/more", "head/classifier/kernel"}
    assert STEM in _same(loaded, model)
  # Ours are told by the net's own paths, published or not.
  assert len(_same(load_weights(net, tmp_path / "other.npz"), net)) == 280
  with pytest.raises(ValueError, match="has no name among those of timm"):
    save_weights(net, tmp_path / "other.safetensors", to="timm")


def test_a_variant_is_told_by_most_of_its_shapes(model, timm_file):
  rewrite(timm_file, lambda tensors: tensors.pop("final_conv.conv.weight"))
  tensors = read_weights(timm_file).tensors
  assert io.find_variant(tensors) == NAME
  narrow = {name: value[..., None] for name, value in tensors.items()}
  with pytest.raises(ValueError, match=r"can't be told.* mobilevit_s$"):
    io.find_variant(narrow)


def test_labels_travel(model, tmp_path):
  labels = [f"digit {index}" for index in range(CLASSES)]
  for target in ("w.safetensors", "folder"):
    save_weights(model, tmp_path / target, to="hf", labels=labels)
    assert read_weights(tmp_path / target).labels == tuple(labels)
  config = json.loads((tmp_path / "folder/config.json").read_text())
  assert config["id2label"]["6"] == "digit 6"
  with pytest.raises(ValueError, match="2 names for a classifier of 7"):
    save_weights(model, tmp_path / "x.npz", labels=labels[:2])


def test_refuses_to_overwrite(model, timm_file):
  before = timm_file.read_bytes()
  with pytest.raises(FileExistsError, match="--force"):
    save_weights(model, timm_file, to="hf")
  assert timm_file.read_bytes() == before
  save_weights(model, timm_file, to="hf", force=True)
  assert names.detect(safetensors.numpy.load_file(timm_file)) == "hf"


def test_forcing_a_folder_leaves_the_rest_of_it(model, tmp_path):
  folder = tmp_path / "out"
  folder.mkdir()
  (folder / "mine.txt").write_text("kept")
  save_weights(model, folder, to="hf", force=True)
  assert sorted(file.name for file in folder.iterdir()) == [
    "config.json",
    "mine.txt",
    "model.safetensors",
    "preprocessor_config.json",
  ]
  assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_other_sources(blank, tmp_path):
  with pytest.raises(FileNotFoundError, match="no such file"):
    load_weights(blank, tmp_path / "absent.safetensors")
  (tmp_path / "w.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
  with pytest.raises(ValueError, match="must end in one of"):
    load_weights(blank, tmp_path / "w.pkl")
  with pytest.raises(ValueError, match="which='last' must be one of auto"):
    load_weights(blank, tmp_path, which="last")


@pytest.mark.parametrize(
  ("answer", "message"), ((OSError("no route"), "no route"), (None, None))
)
def test_hub(monkeypatch, blank, model, tmp_path, answer, message):
  asked = []

  def download(repo, **kwargs):
    asked.append((repo, kwargs["revision"]))
    if answer:
      raise answer
    return str(tmp_path / "hub")

  hub = types.SimpleNamespace(snapshot_download=download)
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  save_weights(model, tmp_path / "hub", to="hf")
  if message:
    with pytest.raises(ValueError, match=message):
      load_weights(blank, "hf://owner/net@v2")
  else:
    loaded = load_weights(blank, "hf://owner/net@v2")
    kernel = loaded.backbone.stem.conv.kernel[...]
    np.testing.assert_array_equal(kernel, model.backbone.stem.conv.kernel[...])
  assert asked == [("owner/net", "v2")]


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
  """A run's folder: raw weights are the model's, averages 1 more, best 2."""
  workdir = tmp_path_factory.mktemp("run")
  # numpy's arrays: JAX would compile an addition for every shape.
  params, stats = jax.tree.map(np.asarray, steps.split(model)[1:])

  def state(offset):
    return steps.TrainState(
      step=jnp.int32(2),
      params={"net": params},
      batch_stats=stats,
      opt_state=(),
      ema_params={"net": jax.tree.map(lambda leaf: leaf + offset, params)},
      ema_batch_stats=jax.tree.map(lambda leaf: leaf + offset, stats),
    )

  checkpoints = checkpoint.Checkpoints(workdir)
  checkpoints.save(2, state(1), {})
  checkpoints.save_best(1, state(2), "ema_top1", 0.5)
  checkpoints.close()
  fields = {"name": NAME, "num_classes": CLASSES, "dropout": None}
  config = {
    "version": mobilevit_jax.__version__,
    "model": fields,
    "eval": {"size": 32, "batch": 8},
    "transform": {"preset": "hf", "resize_size": 40, "flip": 0.5},
  }
  (workdir / "config.json").write_text(json.dumps(config))
  (workdir / "labels.json").write_text(json.dumps(list("abcdefg")))
  return workdir


@pytest.mark.parametrize(
  ("folder", "which", "offset"),
  [
    (".", "ema", 1),
    (".", "raw", 0),
    (".", "best", 2),
    ("best", "auto", 2),
    ("checkpoints", "auto", 1),
    ("checkpoints", "raw", 0),
  ],
)
def test_workdir(run, model, blank, folder, which, offset):
  loaded = trees.flat_model(load_weights(blank, run / folder, which=which))
  for path, value in trees.flat_model(model).items():
    np.testing.assert_array_equal(loaded[path], value + offset, path)


def test_workdir_says_more(run):
  found = read_weights(run / "best")
  assert (found.which, found.step) == ("best", 1)
  assert found.labels == tuple("abcdefg")
  assert found.crop == {"size": 32, "preset": "hf", "resize_size": 40}
  assert io.build_model(found).head.num_classes == CLASSES


def test_only_nets_of_a_family():
  with pytest.raises(ValueError, match="model name='Linear' must be"):
    save_weights(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "x.npz")
