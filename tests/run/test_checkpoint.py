import dataclasses
import gc
import math
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import files
from mobilevit_jax import steps
from mobilevit_jax.run import checkpoint
from mobilevit_jax.run import sharding


def _state(seed, layout):
  rng = np.random.default_rng(seed)

  def values():
    # Integer keys, as the blocks of a stage have.
    return {"stage1": {0: rng.normal(size=3), 1: rng.normal(size=(2, 2))}}

  return layout.replicate(
    steps.TrainState(
      step=jnp.asarray(seed),
      params={"net": values()},
      batch_stats=values(),
      opt_state=(values(), ()),
      ema_params={"net": values(), "task": values()},
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
  step, state, read = again.restore(shapes)
  assert step == 3
  _assert_equal(state, _state(3, layout))
  assert read == progress
  assert all(
    leaf.sharding == other.replicated for leaf in jax.tree.leaves(state)
  )
  again.close()


def test_best_is_kept_besides_the_newest(checkpoints, layout, tmp_path):
  assert checkpoints.best()[0] == -math.inf
  checkpoints.save_best(1, _state(1, layout), "ema_map", 0.5)
  checkpoints.save_best(3, _state(3, layout), "ema_map", 0.75, 0.2)
  # An equal with less loss stays, whatever Orbax makes of its name.
  checkpoints.save_best(5, _state(5, layout), "ema_map", 0.75, 0.1)
  checkpoints.save(6, _state(6, layout), {})
  checkpoints.wait()
  assert checkpoints.best() == (0.75, -0.1, 5)
  best = _state(5, layout)
  shapes = layout.replicated_shapes((best.params["net"], best.batch_stats))
  reader = checkpoint.Checkpoints(tmp_path, create=False)
  step, *weights = reader.restore_weights(*shapes, which="best")
  reader.close()
  assert step == 5
  _assert_equal(tuple(weights), (best.ema_params["net"], best.ema_batch_stats))
  shapes = layout.replicated_shapes(_state(0, layout))
  step, state, _ = checkpoints.restore(shapes)
  assert step == 6
  _assert_equal(state, _state(6, layout))


@pytest.mark.parametrize("which", ["ema", "raw"])
def test_weights_are_restored_without_the_optimizer(
  checkpoints, layout, tmp_path, which
):
  state = _state(4, layout)
  checkpoints.save(4, state, {})
  checkpoints.wait()
  shapes = layout.replicated_shapes((state.params["net"], state.batch_stats))
  reader = checkpoint.Checkpoints(tmp_path, create=False)
  step, *actual = reader.restore_weights(*shapes, which=which)
  assert step == 4
  reader.close()
  expected = {
    "ema": (state.ema_params["net"], state.ema_batch_stats),
    "raw": (state.params["net"], state.batch_stats),
  }[which]
  _assert_equal(tuple(actual), expected)


def _damage(path, how):
  content = path.read_bytes()
  middle = len(content) // 2
  if how == "truncated":
    path.write_bytes(content[:middle])
  elif how == "zeroed":
    path.write_bytes(bytes(len(content)))
  else:  # one bit
    flipped = bytes([content[middle] ^ 4])
    path.write_bytes(content[:middle] + flipped + content[middle + 1 :])


# Orbax leaves the reads that ran beside a failed one to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["truncated", "zeroed", "flipped"])
def test_damaged_file_never_gives_other_values(tmp_path, layout, how):
  made = checkpoint.Checkpoints(tmp_path / "good", keep=2)
  progress = {"window": {"sums": {"loss": 2.5}, "count": 3}}
  for step in (1, 2):
    made.save(step, _state(step, layout), progress)
  made.close()
  newest = tmp_path / "good" / "checkpoints" / "2"
  files = sorted(p.relative_to(newest) for p in newest.rglob("*"))
  files = [name for name in files if (newest / name).is_file()]
  shapes = layout.replicated_shapes(_state(0, layout))
  given = []
  for number, name in enumerate(files):
    if not (newest / name).stat().st_size:
      continue
    workdir = tmp_path / str(number)
    shutil.copytree(tmp_path / "good", workdir)
    _damage(workdir / "checkpoints" / "2" / name, how)
    said = []
    again = checkpoint.Checkpoints(workdir, keep=2, say=said.append)
    step, state, read = again.restore(shapes)
    given.append(step)
    _assert_equal(state, _state(step, layout))
    assert read == progress
    if step == 1:
      assert "checkpoint 2 in" in said[0]
      assert "using the checkpoint before, of step 1" in said[1]
      assert (workdir / "broken" / "2").is_dir()
      # The step is done again, and saved again.
      again.save(2, _state(2, layout), progress)
    again.close()
    reader = checkpoint.Checkpoints(workdir, create=False)
    assert reader.restore(shapes)[0] == 2
    reader.close()
  for _ in range(3):  # what one collection frees may hold more
    gc.collect()
  assert 1 in given, "no file matters"


class _Disk:
  """What a power cut leaves: of each file and folder what was synced of it."""

  def __init__(self, monkeypatch):
    self._synced = {}
    self._fsync = os.fsync
    monkeypatch.setattr(os, "fsync", self._note)

  def _note(self, number):
    self._fsync(number)
    status = os.fstat(number)
    self._synced[status.st_ino] = self._state(status)

  def _state(self, status):
    return status.st_size, status.st_mtime_ns

  def cut(self, root, target):
    """Copies a folder as it would be found; a name not synced is lost."""
    target.mkdir()
    status = root.stat()
    if self._synced.get(status.st_ino) != self._state(status):
      return
    for path in root.iterdir():
      if path.is_dir():
        self.cut(path, target / path.name)
        continue
      status = path.stat()
      whole = self._synced.get(status.st_ino) == self._state(status)
      (target / path.name).write_bytes(path.read_bytes() if whole else b"")


@pytest.mark.parametrize("keep", [1, 2])
def test_announced_checkpoint_survives_a_power_cut(
  tmp_path, layout, monkeypatch, keep
):
  disk = _Disk(monkeypatch)
  root = tmp_path / "run"
  root.mkdir()
  made = checkpoint.Checkpoints(root, keep=keep)
  files.sync(root, deep=False)
  shapes = layout.replicated_shapes(_state(0, layout))
  for step in (1, 2, 3):
    made.save(step, _state(step, layout), {"step": step})
    made.save_best(step, _state(step, layout), "ema_map", step / 10)
    made.wait()
    disk.cut(root, tmp_path / str(step))
    found = checkpoint.Checkpoints(tmp_path / str(step), keep=keep)
    assert found.best()[0] == step / 10
    at, state, progress = found.restore(shapes)
    found.close()
    assert (at, progress) == (step, {"step": step})
    _assert_equal(state, _state(step, layout))
  made.close()


def test_power_cut_without_syncing_loses_it(tmp_path, layout, monkeypatch):
  # The test before must be able to fail.
  disk = _Disk(monkeypatch)
  monkeypatch.setattr(files, "sync", lambda *args, **kwargs: None)
  made = checkpoint.Checkpoints(tmp_path / "run")
  made.save(1, _state(1, layout), {})
  made.close()
  disk.cut(tmp_path / "run", tmp_path / "left")
  assert not [*(tmp_path / "left").rglob("*")]


def test_damaged_best_metrics_are_named(tmp_path, layout):
  made = checkpoint.Checkpoints(tmp_path)
  made.save_best(1, _state(1, layout), "ema_map", 0.5)
  made.close()
  _damage(tmp_path / "best" / "1" / "metrics" / "metrics", "truncated")
  with pytest.raises(checkpoint.CheckpointError, match="best can't be read"):
    checkpoint.Checkpoints(tmp_path)


def test_checkpoint_of_another_state_stays_where_it_is(tmp_path, layout):
  made = checkpoint.Checkpoints(tmp_path)
  made.save(1, _state(1, layout), {})
  made.wait()
  shapes = layout.replicated_shapes(
    dataclasses.replace(_state(0, layout), opt_state=jnp.zeros(5))
  )
  with pytest.raises(checkpoint.CheckpointError, match="another configuration"):
    made.restore(shapes)
  made.close()
  assert (tmp_path / "checkpoints" / "1").is_dir()
  assert not (tmp_path / "broken").exists()


def test_what_is_not_there_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="holds no checkpoints"):
    checkpoint.Checkpoints(tmp_path / "typo", create=False)
  assert not (tmp_path / "typo").exists()
  with pytest.raises(ValueError, match="keep=0"):
    checkpoint.Checkpoints(tmp_path, keep=0)
