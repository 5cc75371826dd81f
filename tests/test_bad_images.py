"""A run over broken images: through the loop, and as a user types it."""

import json
import os
import signal

import pytest

from configs import digits
from mobilevit_jax import models
from mobilevit_jax import train
from mobilevit_jax.config import ConfigError
from mobilevit_jax.data import examples
from mobilevit_jax.run import stop
from mobilevit_jax.run import writer
from tests import tiny
from tests import tiny_imagenet

NUM_IMAGES = 12
BAD = (1, 8)


@pytest.fixture
def folder(tmp_path):
  """Two classes of JPEGs; in each split two are cut off."""
  for split in ("train", "val"):
    for number in range(NUM_IMAGES):
      path = tmp_path / "data" / split / "ab"[number // 6] / f"{number:02}.jpg"
      path.parent.mkdir(parents=True, exist_ok=True)
      jpeg = tiny_imagenet.image(f"{split} {path.name}")
      path.write_bytes(jpeg[:99] if number in BAD else jpeg)
  return tmp_path / "data"


def _records(workdir, kind):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  records = [json.loads(line) for line in lines]
  return [record for record in records if record["kind"] == kind]


def _counts(workdir):
  records = _records(workdir, "train")
  return {record["step"]: record["bad_images"] for record in records}


@pytest.fixture
def config(monkeypatch, folder):
  monkeypatch.setitem(models.FAMILIES, "tiny", tiny.FAMILY)
  config = digits.get_config()
  config.model.name = "tiny"
  config.data.update(
    name="folder", dir=str(folder), eval_split="val", on_bad_image="replace"
  )
  config.plan.update(num_steps=6, base_batch=8, sizes=(16,), base_size=16)
  config.eval.update(size=16, every_epochs=10)
  config.log_every_steps = 2
  return config


def test_counts_and_list_go_on_after_a_stop(config, tmp_path, monkeypatch):
  straight, stopped = tmp_path / "straight", tmp_path / "stopped"
  metrics = train.train_and_evaluate(config, straight)
  assert (metrics["images"], metrics["bad_images"]) == (10, 2)
  counts = _counts(straight)
  # Four epochs of a batch of 8 and one filled up: each image once or twice.
  assert 2 * 3 <= counts[6] <= 2 * 6
  assert list(counts) == [2, 4, 6] == sorted(counts, key=counts.__getitem__)
  lines = (straight / "bad_images.jsonl").read_text().splitlines()
  assert [json.loads(line)["id"] for line in lines] == [*BAD]

  write = writer.Writer.write

  def write_and_stop(self, step, kind, scalars):
    write(self, step, kind, scalars)
    if (step, kind) == (2, "train"):
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(writer.Writer, "write", write_and_stop)
    with pytest.raises(stop.Stopped):
      train.train_and_evaluate(config, stopped)
  assert list(_counts(stopped)) == [2]
  train.train_and_evaluate(config, stopped)
  assert _counts(stopped) == counts
  assert (stopped / "bad_images.jsonl").read_text().splitlines() == lines


def test_evaluation_of_nothing_but_broken_images_fails(config, folder):
  for path in (folder / "val").rglob("*.jpg"):
    path.write_bytes(b"\xff\xd8")
  with pytest.raises(examples.ImageError, match="all 12 images of folder/val"):
    train.train_and_evaluate(config, folder.parent / "run")


def test_unknown_policy_is_refused(config, tmp_path):
  config.data.on_bad_image = "skip"
  message = "config.data.on_bad_image='skip' must be one of error, replace"
  with pytest.raises(ConfigError, match=message):
    train.train_and_evaluate(config, tmp_path / "run")


@pytest.mark.slow
def test_real_command_counts_and_lists_whatever_the_processes(
  run_main, start_processes, folder
):
  def args(workdir):
    return [
      "--config=tests/tiny_config.py",
      f"--workdir={workdir}",
      "--config.data.name=folder",
      f"--config.data.dir={folder}",
      "--config.data.eval_split=val",
      "--config.data.on_bad_image=replace",
      "--config.data.check=True",
      "--config.plan.num_steps=2",
    ]

  one, two = folder.parent / "one", folder.parent / "two"
  finished = run_main(args(one), devices=2)
  # 48 images a step out of 12, so each of the two broken ones four times.
  assert _counts(one) == {1: 8, 2: 16}
  lines = (one / "bad_images.jsonl").read_text().splitlines()
  assert [json.loads(line)["id"] for line in lines] == [*BAD]
  assert " images=10 bad_images=2 steps=2" in finished.stdout.splitlines()[-1]
  for process in start_processes(2, args(two)):
    process.finish()
  assert _counts(two) == _counts(one)
  # The first process checked the data, and the other waited for what it found.
  assert (two / "data_check.json").read_text() == (
    one / "data_check.json"
  ).read_text()
  assert (two / "bad_images.jsonl").read_text().splitlines() == lines
