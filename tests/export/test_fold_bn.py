"""BatchNorm folding."""

from flax import nnx
import jax
import numpy as np
import pytest

from benchmarks.random_weights import randomize
from mobilevit_jax import VARIANTS
from mobilevit_jax.export import fold_batch_norms
from mobilevit_jax.models import layers
from mobilevit_jax.weights import trees
from tests import tiny
from tests.export.random_model import random_images
from tests.export.random_model import random_model


def _logits(model, images):
  graphdef, state = nnx.split(model)
  run = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
  return np.asarray(run(state, images))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_logits_stay(name):
  model = random_model(name, depthwise="auto")
  images = random_images(2, 64)
  expected = _logits(model, images)
  assert np.ptp(expected) > 0.1  # there is something to compare
  folded = fold_batch_norms(model)
  bound = 1e-5 * max(1, np.abs(expected).max())
  np.testing.assert_allclose(_logits(folded, images), expected, atol=bound)


def test_no_norm_and_no_statistics_are_left():
  folded = fold_batch_norms(random_model("mobilevit_xxs"))
  modules = [module for _, module in nnx.iter_modules(folded)]
  assert not any(isinstance(m, layers.BatchNorm) for m in modules)
  assert not nnx.to_pure_dict(nnx.state(folded, nnx.BatchStat))


def test_the_model_is_left_as_it_was():
  model = random_model("mobilevit_xxs")
  before = {k: np.array(v) for k, v in trees.flat_model(model).items()}
  fold_batch_norms(model)
  after = trees.flat_model(model)
  assert after.keys() == before.keys()
  for path, value in before.items():
    np.testing.assert_array_equal(after[path], value, path)


def test_a_folded_net_refuses_to_train():
  folded = fold_batch_norms(randomize(tiny.net()))
  with pytest.raises(ValueError, match="can't train"):
    folded(random_images(1, 32), train=True)


def test_a_norm_without_convolution_is_named():
  class Odd(nnx.Module):
    def __init__(self):
      self.part = nnx.List([Inner()])

  class Inner(nnx.Module):
    def __init__(self):
      self.norm = layers.BatchNorm(4)

  with pytest.raises(ValueError, match="part/0: its BatchNorm follows no"):
    fold_batch_norms(Odd())
