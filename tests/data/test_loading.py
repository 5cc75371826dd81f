import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
from mobilevit_jax.data.transforms import classify
from tests.data import tiny_batches

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRANSFORM = classify.ClassifyTransform()


@pytest.mark.parametrize("num_threads", [2, 5, None])
@pytest.mark.parametrize("prefetch_batches", [1, 4])
def test_threads_do_not_change_batches(
  source, expected, num_threads, prefetch_batches
):
  actual = tiny_batches.train(
    source, num_threads=num_threads, prefetch_batches=prefetch_batches
  )
  tiny_batches.assert_equal(actual, expected)


def test_workers_give_the_same_batches_until_closed(source, expected):
  others = set(multiprocessing.active_children())
  with pipeline.train_batches(
    tiny_batches.make_plan(),
    source,
    seed=tiny_batches.SEED,
    transform=classify.ClassifyTransform(),
    start_step=1,
    num_workers=2,
    num_threads=2,
  ) as batches:
    actual = [next(batches)]
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    # A scheduler's SIGTERM, or Ctrl-C, reaches the whole process group.
    for worker in workers:
      assert worker.pid is not None
      os.kill(worker.pid, signal.SIGTERM)
      os.kill(worker.pid, signal.SIGINT)
    actual += [next(batches) for _ in expected[2:-1]]
    assert all(worker.is_alive() for worker in workers)
    tiny_batches.assert_equal(actual, expected[1:-1])
  assert not any(worker.is_alive() for worker in workers)


# Grain's workers read absl flags, which the test session has parsed.
_KILLED = """
import multiprocessing, os, signal
from absl import flags
from mobilevit_jax.data import pipeline, sources
from mobilevit_jax.data.transforms.classify import ClassifyTransform

def main():
  source = sources.make_source("digits", "test")
  start = lambda: pipeline.eval_batches(
    source, ClassifyTransform(), size=8, batch=2, num_workers=1
  )
  try:
    next(start())
  except ValueError as error:
    print(error)
  flags.FLAGS.mark_as_parsed()
  batches = start()
  next(batches)
  print(*(child.pid for child in multiprocessing.active_children()), flush=True)
  os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
  main()
"""


def test_workers_need_parsed_flags_and_end_with_their_parent(tmp_path):
  script, output = tmp_path / "killed.py", tmp_path / "stdout.txt"
  script.write_text(_KILLED)
  # To a file, since workers that live on would keep a pipe open.
  with output.open("wb") as stdout:
    status = subprocess.run(
      [sys.executable, str(script)],
      env={**os.environ, "PYTHONPATH": str(ROOT)},
      stdout=stdout,
      stderr=subprocess.DEVNULL,
      timeout=120,
    ).returncode
  error, pids = output.read_text().splitlines()
  assert status == -signal.SIGKILL
  assert "num_workers" in error and "mark_as_parsed" in error
  (worker,) = map(int, pids.split())
  deadline = time.monotonic() + 60
  while _is_running(worker):
    assert time.monotonic() < deadline, f"worker {worker} outlives its parent"
    time.sleep(0.05)


def _is_running(pid):
  try:
    state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
  except FileNotFoundError:
    return False
  return state.split()[0] != "Z"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_image_is_named(tmp_path, num_workers):
  tiny_batches.write_images(tmp_path / "train", 6)
  bad = tmp_path / "train" / "class1" / "03.png"
  bad.write_bytes(bad.read_bytes()[:60])
  source = sources.make_source("folder", "train", data_dir=tmp_path)
  # Files are numbered by class, then by name: 03 is the fifth.
  assert source[4].name == str(bad)
  with pipeline.eval_batches(
    source, TRANSFORM, size=8, batch=2, num_workers=num_workers
  ) as batches:
    next(batches)
    next(batches)
    with pytest.raises(examples.ImageError) as caught:
      next(batches)
  assert str(bad) in str(caught.value)
  assert not multiprocessing.active_children()
  plan = tiny_batches.make_plan(6)
  if not num_workers:
    with pytest.raises(examples.ImageError, match=bad.name):
      tiny_batches.train(source, plan)


def test_closed_iterator(source):
  batches = pipeline.eval_batches(source, TRANSFORM, size=8, batch=2)
  next(batches)
  batches.close()
  batches.close()
  with pytest.raises(ValueError, match="closed"):
    next(batches)
  # Nor does it need to have been used.
  pipeline.eval_batches(source, TRANSFORM, size=8, batch=2).close()


def test_exhausted_iterator_stays_exhausted(source):
  with pipeline.eval_batches(
    source, TRANSFORM, size=8, batch=tiny_batches.NUM_IMAGES
  ) as batches:
    assert len(list(batches)) == 1
    assert list(batches) == []


class _CountingSource:
  """A source that tells how many images were asked for."""

  name = "counting"
  class_names: tuple[str, ...] = ("one",)

  def __init__(self):
    self.asked = []

  def __len__(self):
    return 1000

  def __getitem__(self, index):
    self.asked.append(index)
    zeros = np.zeros((4, 4, 3), np.uint8)
    return examples.Example(zeros, {"label": 0}, index, "zero")


def test_few_batches_are_loaded_ahead():
  source = _CountingSource()
  with pipeline.eval_batches(
    source, TRANSFORM, size=4, batch=2, prefetch_batches=3
  ) as batches:
    next(batches)
    time.sleep(0.5)  # time enough for all 500
    # The one that was taken, three that wait, and two in work.
    assert len(source.asked) <= 2 * (1 + 3 + 2)
