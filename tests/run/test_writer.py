import json

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from mobilevit_jax import __version__
from mobilevit_jax import config
from mobilevit_jax import files
from mobilevit_jax.run import checkpoint
from mobilevit_jax.run import writer as event_writer
from tests import bucket


def _events(path):
  """Steps and scalars of an event file, read and summed by TensorBoard."""
  reader = pywrap_tensorflow.PyRecordReader_New(str(path))
  found = []
  with pytest.raises(pywrap_tensorflow.errors.OutOfRangeError):
    while True:
      reader.GetNext()
      event = event_pb2.Event.FromString(reader.record())
      values = {v.tag: v.simple_value for v in event.summary.value}
      found.append((event.step, values))
  return found


def test_tensorboard_reads_the_events(tmp_path):
  writer = event_writer.Writer(tmp_path)
  writer.write(1, "train", {"loss": 1.5, "epoch": 0})
  writer.write(2, "eval", {"ema_top1": float("nan")})
  (path,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
  # Before it is closed too: a killed run keeps what it wrote.
  (_, first, second) = _events(path)
  writer.close()
  assert len(_events(path)) == 3
  assert first == (1, {"train/loss": 1.5, "train/epoch": 0.0})
  assert second[0] == 2 and np.isnan(second[1]["eval/ema_top1"])


def test_bucket_gets_metrics_events_and_what_a_checkpoint_asks(
  tmp_path, monkeypatch
):
  workdir = bucket.path(monkeypatch)
  assert not checkpoint.exists(workdir)
  record = {"version": __version__, "seed": 1}
  config.save_record(record, ("cat", "dog"), workdir)
  assert config.changes_since(record | {"seed": 2}, workdir) == ["seed: 1 -> 2"]
  monkeypatch.setattr(event_writer, "_COPY_EVERY", 0.0)
  writer = event_writer.Writer(workdir)
  writer.rewind(0)
  assert writer.note_start(0) == writer.note_start(5)
  for step in (1, 2, 3):
    writer.write(step, "train", {"loss": step})
  (path,) = (workdir / "tensorboard").iterdir()
  early = path.read_bytes()
  writer.rewind(2)
  writer.write(3, "eval", {"ema_top1": 0.5})
  writer.close()
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
  copy = tmp_path / path.name
  copy.write_bytes(path.read_bytes())
  assert copy.read_bytes().startswith(early)
  assert [step for step, _ in _events(copy)] == [0, 1, 2, 3, 3]
  # Of a checkpoint that was interrupted: Orbax's folder, and none in it.
  (workdir / "checkpoints").mkdir()
  assert checkpoint.exists(workdir)
  checkpoints = checkpoint.Checkpoints(workdir)
  assert checkpoints.latest_step() is None
  checkpoints.close()


def test_bucket_without_what_reads_it_names_the_extra(monkeypatch):
  files.check_reachable("runs/gs")
  monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(OSError, match=r"gs://b/x needs gcsfs.*jax\[gcs\]"):
    files.check_reachable("gs://b/x")


def _steps(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [(r["step"], r["kind"]) for r in map(json.loads, lines)]


def test_rewinding_forgets_what_will_be_redone(tmp_path):
  writer = event_writer.Writer(tmp_path)
  writer.rewind(0)  # nothing there yet
  for step in (1, 2, 3):
    writer.write(step, "train", {"loss": 1.5})
  writer.write(3, "eval", {"ema_top1": 0.5})
  writer.close()
  with (tmp_path / "metrics.jsonl").open("a") as lines:
    lines.write('{"step": 1, "ki')  # killed in the middle
  writer = event_writer.Writer(tmp_path)
  writer.rewind(3)
  assert _steps(tmp_path) == [(1, "train"), (2, "train"), (3, "train")]
  writer.rewind(1)
  writer.write(2, "train", {"loss": 2.5})
  writer.close()
  assert _steps(tmp_path) == [(1, "train"), (2, "train")]
  assert list((tmp_path / "tensorboard").glob("events.out.*"))


def test_numbers_survive_json(tmp_path):
  writer = event_writer.Writer(tmp_path)
  third = float(np.float32(1 / 3))
  writer.write(1, "train", {"loss": third, "worse": float("nan")})
  writer.close()
  record = json.loads((tmp_path / "metrics.jsonl").read_text())
  assert record == {"step": 1, "kind": "train", "loss": third, "worse": None}


def test_other_processes_write_nothing(tmp_path):
  writer = event_writer.Writer(tmp_path, enabled=False)
  writer.rewind(0)
  writer.write(1, "train", {"loss": 1.0})
  writer.close()
  assert not list(tmp_path.iterdir())


def test_duration_reads_like_a_clock():
  seconds = (0, 59.6, 75, 3700)
  assert [event_writer.duration(s) for s in seconds] == [
    "0:00", "1:00", "1:15", "1:01:40",
  ]  # fmt: skip


def test_parameter_table_follows_the_forward_pass():
  params = {
    "head": {
      "classifier": {"bias": np.zeros(2)},
      "expand": {"kernel": np.zeros((2, 2))},
    },
    "backbone": {
      "stage1": {0: {"kernel": np.zeros(3)}, 1: {"kernel": np.zeros(5)}},
      "stem": {"kernel": np.zeros(1000)},
    },
  }
  layers = (
    *("backbone/stem", "backbone/stage1"),
    *("head/expand", "head/classifier"),
  )
  table = event_writer.parameter_table(params, layers)
  rows = [line.split()[:2] for line in table]
  assert rows == [
    ["stem", "1,000"],
    ["stage1.0", "3"],
    ["stage1.1", "5"],
    ["expand", "4"],
    ["classifier", "2"],
    ["total", "1,014"],
  ]
