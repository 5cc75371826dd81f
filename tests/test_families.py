"""What one family of nets can do, every family can: a table.

The nets are narrow and shallow, so that what is tried is the way through the
package and not the family's arithmetic, which has tests of its own.
"""

import shutil

import numpy as np
import pytest

from benchmarks import random_weights
from configs import digits
from mobilevit_jax import models
from mobilevit_jax import summary
from mobilevit_jax import train
from mobilevit_jax import visualize
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import verify
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import mobilevit_v2
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights import trees
from tests import runs
from tests import tiny

SIZE = 96  # odd maps in the last stage
WIDE = mobilevit.Variant((8,) * 6, (8,) * 3, 1, dropout=0.1, depths=(1, 1, 1))


@pytest.fixture(params=tiny.published_families())
def family(request, monkeypatch):
  """A family whose first variant is small."""
  found = models.FAMILIES[request.param]
  small = WIDE
  if isinstance(next(iter(found.variants.values())), mobilevit_v2.Variant):
    small = mobilevit_v2.Variant(0.125)
  monkeypatch.setattr(mobilevit_v2, "DEPTHS", (1, 1, 1))
  monkeypatch.setitem(found.variants, next(iter(found.variants)), small)
  # Published names are those of the published depth; ours need no table.
  monkeypatch.setitem(names.TABLES[request.param], "classifier", ())
  return found


def _name(family):
  return next(iter(family.variants))


@pytest.fixture
def model(family):
  """Its net with random weights, for three classes."""
  return random_weights.randomize(
    models.abstract_model(_name(family), num_classes=3)
  )


def _config(family):
  config = digits.get_config()
  config.model.update(name=_name(family), dropout=0.0)
  config.plan.update(num_steps=4, base_batch=8)
  config.data.update(few_shot=2, eval_split="test")
  config.checkpoint.every_steps = 2
  config.log_every_steps = 1
  return config


@pytest.mark.slow
def test_trains_resumes_and_is_fine_tuned(family, tmp_path):
  config = _config(family)
  train.train_and_evaluate(config, tmp_path / "whole")
  # A run that was killed after its first checkpoint, and goes on.
  shutil.copytree(tmp_path / "whole", tmp_path / "cut")
  shutil.rmtree(tmp_path / "cut/checkpoints/4")
  train.train_and_evaluate(config, tmp_path / "cut")
  runs.assert_same(tmp_path / "cut", tmp_path / "whole")
  config.weights.update(source=str(tmp_path / "whole"), reset="classifier")
  config.optim.freeze = "backbone"
  train.train_and_evaluate(config, tmp_path / "tuned")
  before, after = (runs.arrays(tmp_path / run) for run in ("whole", "tuned"))
  for path, value in after.items():
    if path[:3] == ("ema_params", "net", "backbone"):
      np.testing.assert_array_equal(value, before[path], err_msg=str(path))


def test_summary_counts_every_parameter(model):
  layers = summary.summarize(model, SIZE, SIZE)
  leaves = trees.flat_model(model)
  count = sum(
    leaf.size
    for path, leaf in leaves.items()
    if not path.endswith(("/mean", "/var"))
  )
  assert sum(layer.params for layer in layers) == count
  assert all(layer.macs.total for layer in layers)


def test_is_visualized(model):
  image = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
  shown = []
  for show in (visualize.attention_maps, visualize.context_scores):
    try:
      shown.append(show(model, image))
    except ValueError as error:
      assert "is of the other kind" in str(error)
  (found,) = shown
  for maps in found.values():
    shares = getattr(maps, "weights", getattr(maps, "scores", None))
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
  stages = visualize.feature_maps(model, image)
  assert list(stages) == [f"stage{number}" for number in range(1, 6)]
  assert len(visualize.features.hybrid_blocks(model)) == 3
  plain = visualize.without_attention(model)
  assert len(trees.flat_model(plain)) < len(trees.flat_model(model))


@pytest.mark.parametrize("dialect", names.DIALECTS)
@pytest.mark.parametrize("family_name", names.TABLES)
def test_weights_go_out_and_come_back(family_name, dialect, tmp_path):
  name = next(iter(models.FAMILIES[family_name].variants))
  net = models.abstract_model(name, num_classes=3)
  rng = np.random.default_rng(0)
  values = {
    path: rng.random(leaf.shape, np.float32)
    for path, leaf in trees.flat_model(net).items()
  }
  path = tmp_path / "w.npz"
  if not all(names.table(net)[0].names(dialect)):
    assert dialect not in ("jax", "cvnets")
    with pytest.raises(ValueError, match=f"no name among those of {dialect}"):
      io.write(values, net, path, to=dialect)
    return
  io.write(values, net, path, to=dialect)
  tensors = dict(np.load(path))
  found = io.decode(tensors, net, name="w")
  for key, value in values.items():
    np.testing.assert_array_equal(found[key], value, err_msg=key)
  tensors.pop(next(key for key in tensors if key.endswith("bias")))
  with pytest.raises(ValueError, match=r"in 1 tensors:\n  missing: "):
    io.decode(tensors, net, name="w")


@pytest.mark.export
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", formats.FORMATS)
def test_is_exported_in_every_precision(model, kind):
  for package in ("ai_edge_litert", "onnx", "onnxruntime", "coremltools"):
    pytest.importorskip(package)
  images = verify.built_in_images(SIZE)
  expected = verify.answers_of_jax(model, images, contract.Options())
  row = formats.FORMATS[kind]
  # StableHLO takes long: there the one with more rounding has to do.
  first = -1 if kind == "stablehlo" else 0
  for precision in row.precisions[first:]:
    options = contract.Options(precision, size=SIZE)
    pixels = verify.as_input(images, options)
    more = [pixels] if precision == "int8" else []
    content = row.build(model, options, "{}", *more)
    findings = row.inspect(content)  # which refuses other operators
    assert findings.rank <= contract.MAX_RANK
    if row.run is None:
      verify.check_shapes(model, findings.outputs, options)
      continue
    found = row.run(content, pixels, options)
    comparison = verify.compare(model, found, expected, options)
    if precision in verify.TOLERANCE:
      verify.check(comparison, options)
    else:
      error = found["logits"] - expected["logits"]
      assert np.linalg.norm(error) < 0.2 * np.linalg.norm(expected["logits"])
