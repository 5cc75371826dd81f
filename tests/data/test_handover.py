"""Batches pass through memory, and nothing stays there."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np

from mobilevit_jax.data import handover

ROOT = pathlib.Path(__file__).resolve().parents[2]
_KILLED = """
import multiprocessing, os, signal
import numpy as np
from mobilevit_jax.data import handover

place = handover.Place()
handover.put(place.path, {"images": np.ones((4, 4), np.uint8)})
lock = multiprocessing.get_context("spawn").Lock()
place.note_semaphores()
print(place.path, lock._semlock.name, flush=True)
os.killpg(0, signal.SIGKILL)  # and Python's tracker of semaphores
"""


def test_batch_is_what_was_put_and_leaves_nothing():
  rng = np.random.default_rng(0)
  batch = {
    "images": rng.integers(0, 256, (3, 5, 7, 3), np.uint8),
    "turned": rng.random((4, 6)).T,
    "number": np.array(3, np.int32),
    "none": np.zeros((0, 4), np.float32),
  }
  place = handover.Place()
  taken = handover.put(place.path, batch).take()
  left = handover.put(place.path, batch)
  assert [path.name for path in place.path.iterdir()] == [
    pathlib.Path(left.file).name
  ]
  place.close()
  assert not place.path.exists()
  assert taken.keys() == batch.keys()
  for name, array in batch.items():
    assert taken[name].dtype == array.dtype
    np.testing.assert_array_equal(taken[name], array)
  taken["images"][0] = 0  # it is the parent's own


def test_killed_process_leaves_what_the_next_start_removes():
  at_work = handover.Place()
  killed = subprocess.run(
    [sys.executable, "-c", _KILLED],
    cwd=ROOT,
    env={**os.environ},
    capture_output=True,
    text=True,
    start_new_session=True,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  folder, name = killed.stdout.split()
  left = pathlib.Path(folder)
  assert len([*left.iterdir()]) == 2
  semaphore = pathlib.Path(f"/dev/shm/sem.{name.removeprefix('/')}")
  if sys.platform == "linux":
    assert semaphore.exists()
  # Whoever starts first may be another test.
  handover.remove_leftovers()
  assert not left.exists()
  assert not semaphore.exists()
  assert at_work.path.exists()
  at_work.close()


def test_full_memory_is_said(tmp_path):
  class Full(type(tmp_path)):
    def open(self, *unused, **also_unused):
      raise OSError(28, "No space left on device")

  batch = {"images": np.zeros((3 << 20,), np.uint8)}
  try:
    handover.put(Full(tmp_path), batch)
  except OSError as error:
    assert "for a batch of 3 MB: lower data.num_workers" in str(error)
  else:
    raise AssertionError("it was written")
