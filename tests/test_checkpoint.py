import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import checkpoint
from mobilevit_jax import sharding
from mobilevit_jax import steps


def _state(seed, layout):
  rng = np.random.default_rng(seed)

  def values():
    # Integer keys, as the blocks of a stage have.
    return {"stage1": {0: rng.normal(size=3), 1: rng.normal(size=(2, 2))}}

  return layout.replicate(
    steps.TrainState(
      step=jnp.asarray(seed),
      params=values(),
      batch_stats=values(),
      opt_state=(values(), ()),
      ema_params=values(),
      ema_batch_stats=values(),
    )
  )


def _assert_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.fixture
def layout():
  return sharding.Layout(jax.devices()[:2])


@pytest.fixture
def checkpoints(tmp_path):
  made = checkpoint.Checkpoints(tmp_path, keep=2)
  yield made
  made.close()


def test_newest_is_restored_exactly_on_other_devices(
  checkpoints, layout, tmp_path
):
  progress = {"window": {"sums": {"loss": 0.1 + 0.2}, "count": 3}}
  for step in (1, 2, 3):
    checkpoints.save(step, _state(step, layout), progress)
  checkpoints.wait()
  names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
  assert names == {"2", "3"}
  again = checkpoint.Checkpoints(tmp_path, create=False)
  other = sharding.Layout(jax.devices()[:4])
  shapes = other.replicated_shapes(_state(0, layout))
  state, read = again.restore(shapes)
  _assert_equal(state, _state(3, layout))
  assert read == progress
  assert all(
    leaf.sharding == other.replicated for leaf in jax.tree.leaves(state)
  )
  again.close()


def test_best_is_kept_besides_the_newest(checkpoints, layout):
  assert checkpoints.best_step() is None
  assert checkpoints.best_top1() == -1
  checkpoints.save_best(1, _state(1, layout), {}, 0.5)
  checkpoints.save_best(5, _state(5, layout), {}, 0.75)
  checkpoints.save(6, _state(6, layout), {})
  checkpoints.wait()
  assert (checkpoints.best_step(), checkpoints.best_top1()) == (5, 0.75)
  shapes = layout.replicated_shapes(_state(0, layout))
  _assert_equal(checkpoints.restore(shapes, best=True)[0], _state(5, layout))
  _assert_equal(checkpoints.restore(shapes)[0], _state(6, layout))


@pytest.mark.parametrize("which", ["ema", "raw"])
def test_weights_are_restored_without_the_optimizer(
  checkpoints, layout, tmp_path, which
):
  state = _state(4, layout)
  checkpoints.save(4, state, {})
  checkpoints.wait()
  shapes = layout.replicated_shapes((state.params, state.batch_stats))
  reader = checkpoint.Checkpoints(tmp_path, create=False)
  actual = reader.restore_weights(*shapes, which=which)
  reader.close()
  expected = {
    "ema": (state.ema_params, state.ema_batch_stats),
    "raw": (state.params, state.batch_stats),
  }[which]
  _assert_equal(actual, expected)


def test_what_is_not_there_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="holds no checkpoints"):
    checkpoint.Checkpoints(tmp_path / "typo", create=False)
  assert not (tmp_path / "typo").exists()
  with pytest.raises(ValueError, match="keep=0"):
    checkpoint.Checkpoints(tmp_path, keep=0)
