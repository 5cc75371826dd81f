"""The real digits.py, shrunk to thirty steps, through the real command."""

import json
import re
import resource
import signal

import numpy as np
import pytest

from tests import runs

STEPS = 30


def _args(workdir, *more):
  return [
    "--config=configs/digits.py",
    f"--workdir={workdir}",
    f"--config.plan.num_steps={STEPS}",
    "--config.log_every_steps=1",
    *more,
  ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, start_main_module):
  """A run that nothing disturbs: its folder and what it printed."""
  workdir = tmp_path_factory.mktemp("run") / "reference"
  finished = start_main_module(_args(workdir)).finish(timeout=600)
  return workdir, finished.stdout


@pytest.mark.smoke
def test_run_says_what_it_does_and_leaves_its_files(reference):
  workdir, stdout = reference
  assert "1437 images for training, 360 for evaluation, 10 classes" in stdout
  assert re.search(r"total +954,234 parameters", stdout)
  assert stdout.count("compiled 1/1: 48 images of 32 px") == 1
  assert re.search(r"step 30/30 .* images/s data wait .* ETA 0:00", stdout)
  assert re.fullmatch(
    r"final: top1=0\.\d{4} top5=\d\.\d{4} \(ema\) top1=0\.\d{4} \(raw\) "
    r"images=360 steps=30",
    stdout.splitlines()[-1],
  )
  records = runs.records(workdir)
  train = [record for record in records if record["kind"] == "train"]
  assert [record["step"] for record in train] == list(range(1, STEPS + 1))
  assert train[-1]["loss"] < train[0]["loss"]
  assert {"learning_rate", "grad_norm", "epoch", "top1"} <= train[0].keys()
  assert records[-1]["images"] == 360
  assert list((workdir / "tensorboard").glob("events.out.*"))
  assert len(json.loads((workdir / "labels.json").read_text())) == 10
  assert json.loads((workdir / "config.json").read_text())["seed"] == 0
  assert re.search(r"goodput: 0\.\d\d, \d+ s of steps in \d+ s since", stdout)


def test_time_of_a_window_is_split_whole(reference):
  for line in (reference[0] / "metrics.jsonl").read_text().splitlines():
    record = json.loads(line)
    if record["kind"] == "train":
      parts = ("data_wait_seconds", "step_seconds", "logging_seconds")
      seconds = 1 / record["steps_per_second"]
      assert sum(record[part] for part in parts) == pytest.approx(seconds)
      assert 0 < record["goodput"] < 1


def test_same_seed_gives_the_same_bits(reference, run_main, tmp_path):
  run_main(_args(tmp_path))
  runs.assert_same(tmp_path, reference[0])


def test_losses_do_not_depend_on_the_number_of_devices(
  reference, run_main, tmp_path
):
  run_main(_args(tmp_path), devices=8)
  losses = [
    [r["loss"] for r in runs.records(folder) if r["kind"] == "train"][:10]
    for folder in (tmp_path, reference[0])
  ]
  difference = np.abs(np.subtract(*losses)).max()
  print(f"1 and 8 devices, 10 steps: losses differ by {difference:.1e} at most")
  assert difference <= 1e-5


def test_sigkill_and_resume_equals_no_interruption(
  reference, start_main, run_main, tmp_path
):
  every = "--config.checkpoint.every_steps=13"
  killed = start_main(_args(tmp_path, every))
  saved = tmp_path / "checkpoints" / "13" / "_CHECKPOINT_METADATA"
  killed.wait_until(saved.exists, "checkpoint 13")
  killed.kill()
  resumed = run_main(_args(tmp_path, every))
  assert re.search(r"resuming at step (13|26) of 30", resumed.stdout)
  runs.assert_same(tmp_path, reference[0])


def test_sigterm_saves_and_resume_equals_no_interruption(
  reference, start_main, run_main, tmp_path
):
  stopped = start_main(_args(tmp_path))
  stopped.wait_for_output("step 20/30")
  stopped.popen.send_signal(signal.SIGTERM)
  finished = stopped.finish(expect=128 + signal.SIGTERM)
  step = re.search(r"stopped by SIGTERM at step (\d+) of 30", finished.stderr)
  assert step, finished.stderr
  assert "Traceback" not in finished.stderr
  resumed = run_main(_args(tmp_path))
  assert f"resuming at step {step[1]} of 30" in resumed.stdout
  runs.assert_same(tmp_path, reference[0])


def test_full_disk_is_a_clear_error_and_costs_nothing(
  reference, start_main, run_main, tmp_path
):
  every = "--config.checkpoint.every_steps=10"
  full = start_main(_args(tmp_path, every))
  saved = tmp_path / "checkpoints" / "10" / "_CHECKPOINT_METADATA"
  full.wait_until(saved.exists, "checkpoint 10")
  # Files of over a megabyte are refused from now on, as by a full disk.
  resource.prlimit(full.popen.pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
  stderr = full.finish(expect=1).stderr
  # TensorStore's threads may add lines of their own.
  assert f"\nerror: can't save to {tmp_path}/checkpoints: " in f"\n{stderr}"
  resumed = run_main(_args(tmp_path, every))
  assert "resuming at step 10 of 30" in resumed.stdout
  runs.assert_same(tmp_path, reference[0])


def test_evaluation_mode_repeats_the_final_line(reference, run_main):
  workdir, stdout = reference
  evaluated = run_main([*_args(workdir), "--mode=eval"])
  assert evaluated.stdout.splitlines()[-1] == stdout.splitlines()[-1]


@pytest.mark.smoke
@pytest.mark.parametrize(
  ("flag", "message"),
  [
    (
      "--config.model.output_stride=4",
      "error: config.model.output_stride=4 must be 8, 16 or 32",
    ),
    ("--mode=eval", "holds no checkpoints"),
    ("--config.weights.source=none.npz", "error: config.weights: none.npz"),
    ("--config.transform.preset=x", "config.transform.preset='x' must be one"),
    ("--config.plan.sizes=31", "config.plan.sizes=(31,) must be at least 32"),
    ("--config.seed=99999999999999999999", "must be a whole number from 0 to"),
    ("--config.weights.which=emma", "did you mean 'ema'?"),
    ("--config.optim.eps=nan", "config.optim.eps=nan must be a finite number"),
    ("--config.data.name=", "config.data.name='' must be a text"),
    ("--config.plan.nope=1", "--config.plan.nope=1: there is no field 'nope'"),
    ("--workdir=", "--workdir= must name a folder"),
    ("--config=README.md", "--config=README.md: SyntaxError: "),
    ("--config.data.flip=1", "config.data.flip is now config.transform.flip"),
    ("--config.weights.head=x", "weights.head is now config.weights.reset"),
    ("--config.optim.peek_lr=1", "'peek_lr' Did you mean \"peak_lr\""),
    ("--config.optim.peak_lr=high", "--config.optim.peak_lr=high: could not"),
    ("--config=configs/imagenet.py:xl", "variant 'xl' must be one of xxs, xs"),
    ("--config=configs/none.py:x", "No such file: 'configs/none.py'"),
    ("--mode=test", "--mode=test: value should be one of <train|eval>"),
    ("--workdirs=runs", "Unknown command line flag 'workdirs'"),
    ("digits", "unexpected argument 'digits'"),
  ],
)
def test_bad_command_is_one_clear_line(run_main, tmp_path, flag, message):
  workdir = tmp_path / "run"
  failed = run_main([*_args(workdir), flag], expect=1)
  assert failed.stderr.startswith("error: ")
  assert failed.stderr.count("\n") == 1
  assert message in failed.stderr
  assert not workdir.exists()


def test_weights_are_evaluated_without_a_run(reference, run_main, tmp_path):
  workdir, stdout = reference
  elsewhere = tmp_path / "run"
  flags = ["--mode=eval", f"--config.weights.source={workdir}"]
  evaluated = run_main([*_args(elsewhere), *flags])
  ema = re.search(r"final: (.*) \(ema\)", stdout)[1]
  assert evaluated.stdout == f"final: {ema} (weights) images=360 steps=0\n"
  assert not elsewhere.exists()


def test_another_model_is_refused(reference, run_main):
  workdir, _ = reference
  before = sorted(path.name for path in workdir.iterdir())
  flag = "--config.model.name=mobilevit_xs"
  failed = run_main([*_args(workdir), flag], expect=1)
  assert "model.name: mobilevit_xxs -> mobilevit_xs" in failed.stderr
  assert sorted(path.name for path in workdir.iterdir()) == before


def test_refused_resume_leaves_the_run_as_it_was(reference, run_main):
  workdir, _ = reference
  before = {p.name: p.read_bytes() for p in workdir.iterdir() if p.is_file()}
  # The clipped optimiser's state is another, which only restoring shows.
  flags = ["--config.optim.clip_norm=1.0", "--config.eval.size=48"]
  failed = run_main([*_args(workdir), *flags], expect=1)
  assert "another configuration" in failed.stderr
  after = {p.name: p.read_bytes() for p in workdir.iterdir() if p.is_file()}
  assert after == before
