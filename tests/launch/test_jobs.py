"""Slurm, xpk, SkyPilot and one machine: stopped, done and failed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

RUN = ["--config=configs/imagenet.py:xs", "--workdir=gs://bucket/xs"]
JOB = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "64"}

TRAINER = f"""#!{sys.executable} -SE
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pathlib.Path(os.environ["FAKE"], "up").write_text("\\n".join(sys.argv[1:]))
time.sleep(60 if "--wait" in sys.argv else 0)
sys.exit(int(os.environ.get("CODE", 0)))
"""


@pytest.fixture
def trainer(launch):
  path = launch.home / "trainer"
  path.write_text(TRAINER)
  path.chmod(0o755)
  return str(path)


def is_up(launch):
  for _ in range(300):
    if (launch.home / "up").exists():
      return True
    time.sleep(0.05)
  return False


@pytest.mark.parametrize("code", [0, 1, 143, 137])
def test_a_slurm_job_is_queued_again_only_when_stopped(launch, code):
  launch.answer(("srun", code, ""), ("squeue", 0, "RUNNING"))
  result = launch("slurm.sbatch", *RUN, **JOB)
  again = [["scontrol", "requeue", "7"]] if code == 143 else []
  assert launch.calls("scontrol") == again
  assert result.returncode == (0 if again else code)
  [srun] = launch.calls("srun")
  assert "--cpus-per-task=64" in srun
  assert srun[-4:] == ["bash", "launch/local.sh", *RUN]


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING", ""])
def test_a_slurm_job_that_is_not_running_is_left_alone(launch, state):
  launch.answer(("srun", 143, ""), ("squeue", 0, state))
  assert launch("slurm.sbatch", *RUN, **JOB).returncode == 143
  assert launch.calls("scontrol") == []


def test_a_slurm_job_does_not_requeue_for_ever(launch):
  launch.answer(("srun", 143, ""), ("squeue", 0, "RUNNING"))
  result = launch("slurm.sbatch", *RUN, **JOB, SLURM_RESTART_COUNT="100")
  assert result.returncode == 1
  assert launch.calls("scontrol") == []


def test_a_slurm_job_asks_for_signal_and_requeue(launch):
  text = (launch.tree / "launch" / "slurm.sbatch").read_text()
  assert "\n#SBATCH --signal=TERM@120\n" in text
  assert "\n#SBATCH --requeue\n" in text


@pytest.mark.parametrize(
  ("per", "tasks", "cpus"), [("gpu", 4, 8), ("node", 1, 32)]
)
def test_slurm_starts_a_process_for_a_gpu_or_a_node(launch, per, tasks, cpus):
  launch(
    "slurm.sh",
    "--gpus_per_node=4",
    f"--process_per={per}",
    "--time=1:00:00",
    "--",
    *RUN,
  )
  [sbatch] = launch.calls("sbatch")
  assert f"--ntasks-per-node={tasks}" in sbatch
  assert f"--cpus-per-task={cpus}" in sbatch


@pytest.mark.parametrize("code", [0, 1, 143])
def test_the_exit_code_is_the_trainers(launch, trainer, code):
  result = launch("local.sh", *RUN, PYTHON=trainer, CODE=str(code))
  assert result.returncode == code
  words = (launch.home / "up").read_text().split("\n")
  assert words == ["-m", "mobilevit_jax.main", *RUN]


@pytest.mark.parametrize(
  ("settings", "preloaded"),
  [
    ({"JEMALLOC": "/x/libjemalloc.so.2"}, True),
    ({"JEMALLOC": ""}, False),
    ({"JEMALLOC": "/x/libjemalloc.so.2", "LD_PRELOAD": "mine.so"}, False),
  ],
)
def test_jemalloc_is_preloaded_where_asked_for(launch, settings, preloaded):
  result = launch("local.sh", *RUN, DRY_RUN="1", **settings)
  assert result.returncode == 0
  words = result.stdout.split()
  assert ("LD_PRELOAD=/x/libjemalloc.so.2" in words) == preloaded
  assert any(word.startswith("MALLOC_CONF=") for word in words) == preloaded


def test_cpu_becomes_as_many_devices_as_asked_for(launch):
  settings = {"CPU_DEVICES": "2", "XLA_FLAGS": "--xla_dump_to=/x"}
  result = launch("local.sh", *RUN, DRY_RUN="1", **settings)
  flag = "--xla_force_host_platform_device_count=2"
  assert flag in result.stdout
  assert "--xla_dump_to=/x" in result.stdout
  assert flag not in launch("local.sh", *RUN, DRY_RUN="1").stdout


def test_sigterm_reaches_the_trainer_inside_xpks_shell(launch, trainer):
  launch(
    "xpk.sh",
    "train",
    "--name=n",
    "--zone=z",
    "--type=tpu7x-16",
    "--image=i",
    "--",
    *RUN,
    "--wait",
  )
  [xpk] = launch.calls("xpk")
  [command] = [w for w in xpk if w.startswith("--command=")]
  command = command.removeprefix("--command=").replace(
    "/mobilevit ", f"{launch.tree} "
  )
  # As xpk 1.16 wraps it: SIGTERM goes to the shell in the background.
  with subprocess.Popen(
    ["bash", "-c", f"({command}) & echo $!; wait $!"],
    env=launch.env(PYTHON=trainer),
    stdout=subprocess.PIPE,
    text=True,
  ) as shell:
    assert shell.stdout is not None
    inner = int(shell.stdout.readline())
    assert is_up(launch)
    os.kill(inner, signal.SIGTERM)
    assert shell.wait(timeout=30) == 143


@pytest.mark.parametrize(("jax", "nodes"), [("cuda13", 2), ("cuda13", 1)])
def test_a_sky_node_is_told_of_the_others(launch, trainer, jax, nodes):
  result = launch(
    "sky.sh",
    "node",
    PYTHON=trainer,
    JAX=jax,
    TRAINER=" ".join([*RUN, "'--config.data.dir=it is'"]),
    SKYPILOT_NUM_NODES=str(nodes),
    SKYPILOT_NODE_RANK="1",
    SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2",
  )
  assert result.returncode == 0, result.stderr
  words = pathlib.Path(launch.home, "up").read_text().split("\n")[4:]
  others = [
    "--coordinator=10.0.0.1:8476",
    "--num_processes=2",
    "--process_id=1",
  ]
  assert words == ["--config.data.dir=it is", *(others if nodes > 1 else [])]
