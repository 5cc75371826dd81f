import json

import numpy as np

from mobilevit_jax.run import writer as writer_lib


def _steps(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [(r["step"], r["kind"]) for r in map(json.loads, lines)]


def test_rewinding_forgets_what_will_be_redone(tmp_path):
  writer = writer_lib.Writer(tmp_path)
  writer.rewind(0)  # nothing there yet
  for step in (1, 2, 3):
    writer.write(step, "train", {"loss": 1.5})
  writer.write(3, "eval", {"ema_top1": 0.5})
  writer.close()
  with (tmp_path / "metrics.jsonl").open("a") as lines:
    lines.write('{"step": 1, "ki')  # killed in the middle
  writer = writer_lib.Writer(tmp_path)
  writer.rewind(3)
  assert _steps(tmp_path) == [(1, "train"), (2, "train"), (3, "train")]
  writer.rewind(1)
  writer.write(2, "train", {"loss": 2.5})
  writer.close()
  assert _steps(tmp_path) == [(1, "train"), (2, "train")]
  assert list((tmp_path / "tensorboard").glob("events.out.*"))


def test_numbers_survive_json(tmp_path):
  writer = writer_lib.Writer(tmp_path)
  third = float(np.float32(1 / 3))
  writer.write(1, "train", {"loss": third, "worse": float("nan")})
  writer.close()
  record = json.loads((tmp_path / "metrics.jsonl").read_text())
  assert record == {"step": 1, "kind": "train", "loss": third, "worse": None}


def test_other_processes_write_nothing(tmp_path):
  writer = writer_lib.Writer(tmp_path, enabled=False)
  writer.rewind(0)
  writer.write(1, "train", {"loss": 1.0})
  writer.close()
  assert not list(tmp_path.iterdir())


def test_duration_reads_like_a_clock():
  seconds = (0, 59.6, 75, 3700)
  assert [writer_lib.duration(s) for s in seconds] == [
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
  table = writer_lib.parameter_table(params, layers)
  rows = [line.split()[:2] for line in table]
  assert rows == [
    ["stem", "1,000"],
    ["stage1.0", "3"],
    ["stage1.1", "5"],
    ["expand", "4"],
    ["classifier", "2"],
    ["total", "1,014"],
  ]
