"""The trainer holds other tasks: masks, boxes, and one with its own arrays.

None of them is named in the package: each is a head, a source, a transform and
a task of about sixty lines, through the real `main`.
"""

import json
import re

import pytest

from tests import runs

pytestmark = pytest.mark.slow
BEST = {"masks": "miou", "boxes": "median", "teacher": "top1"}
MODULE = "tests.skeletons.main"


def _args(name, workdir):
  return [
    f"--config=tests/skeletons/config.py:{name}",
    f"--workdir={workdir}",
  ]


@pytest.fixture(scope="module", params=BEST)
def reference(request, tmp_path_factory, start_main_module):
  """The task's name, an undisturbed run's folder, and what it printed."""
  workdir = tmp_path_factory.mktemp("run") / request.param
  args = _args(request.param, workdir)
  process = start_main_module(args, devices=2, module=MODULE)
  return request.param, workdir, process.finish().stdout


def test_it_trains_and_keeps_the_best_by_its_own_metric(reference):
  name, workdir, stdout = reference
  records = runs.records(workdir)
  train = [record for record in records if record["kind"] == "train"]
  assert train[-1]["loss"] < train[0]["loss"]
  assert len({record["image_size"] for record in train}) == 2
  values = {r["step"]: r[f"ema_{BEST[name]}"] for r in records if "images" in r}
  assert len(values) > 2 and len({*values.values()}) > 1
  best = max(values, key=lambda step: (values[step], step))
  (saved,) = (p.name for p in (workdir / "best").iterdir() if p.name.isdigit())
  assert int(saved) == best
  metrics = json.loads(
    (workdir / "best" / saved / "metrics" / "metrics").read_text()
  )
  assert metrics[f"ema_{BEST[name]}"] == values[best]
  assert metrics["step"] == best
  assert re.match(rf"final: {BEST[name]}=", stdout.splitlines()[-1])


def test_killed_and_resumed_it_gives_the_same_bits(
  reference, start_main, tmp_path
):
  name, workdir, _ = reference
  killed = start_main(_args(name, tmp_path), devices=2, module=MODULE)
  saved = tmp_path / "checkpoints" / "10" / "_CHECKPOINT_METADATA"
  killed.wait_until(saved.exists, "checkpoint 10")
  killed.kill()
  resumed = start_main(_args(name, tmp_path), devices=2, module=MODULE).finish()
  assert re.search(r"resuming at step (10|15) of 20", resumed.stdout)
  runs.assert_same(tmp_path, workdir)
  own = [path for path in runs.arrays(tmp_path) if "task" in path]
  # Parameters, two moments of theirs, and their average.
  assert len(own) == (4 if name == "teacher" else 0)


def test_one_and_two_processes_evaluate_alike(reference, start_processes):
  name, workdir, stdout = reference
  args = [*_args(name, workdir), "--mode=eval"]
  processes = start_processes(2, args, module=MODULE)
  for process in processes:
    line = process.finish().stdout.splitlines()[-1]
    assert line == stdout.splitlines()[-1]
