"""What every script does with arguments: wrong ones, and in a dry run."""

import os
import pathlib
import re
import shlex
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
CONFIG = "--config=configs/imagenet.py:xs"
RUN = [CONFIG, "--workdir=gs://bucket/it's here"]
SLICE = ["--name=mv", "--zone=us-east5-b"]
TPU = ["train", *SLICE, "--type=v6e-16"]
XPK = ["train", *SLICE, "--type=tpu7x-16", "--image=host/mv"]

WRONG = {
  "tpu_vm.sh": [
    ([], "unknown command '': say train, create,"),
    (["crate"], "unknown command 'crate': say train, create,"),
    (["create", "--zone=z", "--type=v4-8"], "--name is missing: add it"),
    (["train", *SLICE], "--type is missing: add it, such as --type=v6e-16"),
    (["create", *SLICE, "--type=tpu7x-8"], "use launch/xpk.sh"),
    (["create", *SLICE, "--type=v5e-16"], "is called v5litepod-16"),
    (["create", *SLICE, "--type=h100"], "--type=h100 must be v4-N"),
    (["create", *SLICE, "--type", "v4-8"], "--type needs a value"),
    (["create", *SLICE, "--type=v4-8", "--spot=1"], "write --spot alone"),
    (["setup", *SLICE, "--spot"], "unknown flag --spot: here are --name="),
    (["setup", *SLICE, "--", CONFIG], "setup takes no trainer's flags"),
    (["logs", "mv"], "unexpected argument 'mv': flags are --name=value"),
    ([*TPU, "--max_restarts=no", "--", *RUN], "--max_restarts=no must be a"),
    ([*TPU, "--"], "--config is missing: add --config=configs/imagenet.py:xs"),
    ([*TPU, "--", CONFIG], "add --workdir=gs://BUCKET/runs/NAME"),
    (
      [*TPU, "--", CONFIG, "--workdir=runs/x"],
      "would be lost with its machine",
    ),
    ([*TPU, "--", "--config=no.py:s", "--workdir=gs://b"], "no.py is no file"),
  ],
  "xpk.sh": [
    ([], "unknown command '': say cluster, image,"),
    (["cluster", "--name=n", "--zone=z"], "--type is missing"),
    (["train", *SLICE, "--type=tpu7x-16", "--", *RUN], "--image is missing"),
    (["wait", "--name=n"], "--zone is missing"),
    ([*XPK, "--", CONFIG, "--workdir=/data"], "would be lost with its machine"),
    (["logs", "--name=n", "--zone=z"], "unknown flag --zone: here are --name="),
  ],
  "slurm.sh": [
    (["--", *RUN], "--time is missing: add it, such as --time=24:00:00"),
    (["--nodes=0", "--", *RUN], "--nodes=0 must be a whole number from 1"),
    (["--time=1", "--process_per=job", "--", *RUN], "must be gpu or node"),
    (["--time=1", *RUN], "unknown flag --config: here are --nodes="),
    (["--time=1", "--", CONFIG], "add --workdir=runs/NAME"),
  ],
  "slurm.sbatch": [([], "--config is missing")],
  "sky.sh": [
    (["--", *RUN], "--gpus is missing: add it, such as --gpus=H100:8"),
    (["--gpus=tpu-v6e-8", "--nodes=2", "--", *RUN], "a TPU slice is one node"),
    (["--gpus=L4", "--", CONFIG, "--workdir=x"], "would be lost"),
  ],
  "local.sh": [([], "--config is missing"), (RUN, "run launch/install.sh")],
  "install.sh": [
    ([], "no accelerator named: say cpu, cuda13, cuda12 or tpu"),
    (["gpu"], "unknown accelerator 'gpu': say cpu, cuda13, cuda12 or tpu"),
    (["cpu", "now"], "unexpected argument 'now'"),
  ],
  "tpu_host.sh": [(["halt"], "unknown command 'halt': say start, status")],
}


@pytest.mark.parametrize(
  ("script", "arguments", "message"),
  [(script, *case) for script, cases in WRONG.items() for case in cases],
)
def test_wrong_arguments_give_one_line_and_run_nothing(
  launch, script, arguments, message
):
  result = launch(script, *arguments)
  assert result.returncode == 2
  assert re.fullmatch(r"error: .+\n", result.stderr)
  assert message in result.stderr
  assert result.stdout == ""
  assert launch.calls("gcloud", "xpk", "sbatch", "srun", "sky", "uv") == []


@pytest.mark.parametrize(
  ("script", "tool", "arguments"),
  [
    ("tpu_vm.sh", "gcloud", ["delete", *SLICE]),
    ("xpk.sh", "xpk", ["wait", *SLICE]),
    ("xpk.sh", "kubectl", ["logs", "--name=n"]),
    ("xpk.sh", "docker", ["image", "--image=i"]),
    ("slurm.sh", "sbatch", ["--time=1", "--", *RUN]),
    ("sky.sh", "sky", ["--gpus=L4", "--", *RUN]),
  ],
)
def test_a_missing_tool_is_named_with_how_to_get_it(
  launch, script, tool, arguments
):
  (launch.path / tool).unlink()
  result = launch(script, *arguments)
  assert result.returncode == 2
  assert re.fullmatch(rf"error: {tool} is not on the PATH: .+\n", result.stderr)


def test_dry_run_must_be_1_or_0(launch):
  result = launch("install.sh", "cpu", DRY_RUN="yes")
  assert result.returncode == 2
  assert result.stderr == "error: DRY_RUN=yes must be 1 or 0\n"
  assert launch.calls() == []


GOOD = [
  ("tpu_vm.sh", ["create", *SLICE, "--type=v4-32", "--extra=--network=a b"]),
  ("tpu_vm.sh", ["create", *SLICE, "--type=v5p-8", "--queue", "--project=p"]),
  ("tpu_vm.sh", ["setup", *SLICE]),
  ("tpu_vm.sh", ["start", *SLICE, "--", *RUN]),
  ("tpu_vm.sh", ["logs", *SLICE, "--worker=1"]),
  ("tpu_vm.sh", ["stop", *SLICE]),
  ("tpu_vm.sh", ["delete", *SLICE, "--queue"]),
  ("xpk.sh", ["cluster", *SLICE, "--type=tpu7x-16", "--spot"]),
  ("xpk.sh", ["image", "--image=host/mv"]),
  ("xpk.sh", [*XPK, "--", *RUN]),
  ("xpk.sh", ["wait", *SLICE]),
  ("xpk.sh", ["logs", "--name=n"]),
  ("xpk.sh", ["delete", *SLICE]),
  ("xpk.sh", ["delete_cluster", *SLICE]),
  ("slurm.sh", ["--time=1:00:00", "--partition=gpu", "--", *RUN]),
  ("sky.sh", ["--gpus=H100:8", "--nodes=2", "--spot", "--", *RUN]),
  ("install.sh", ["tpu"]),
]


@pytest.mark.parametrize(("script", "arguments"), GOOD)
def test_a_dry_run_prints_what_a_run_does(launch, script, arguments):
  dry = launch(script, *arguments, DRY_RUN="1")
  assert dry.returncode == 0, dry.stderr
  assert launch.calls("gcloud", "xpk", "sbatch", "sky", "docker", "uv") == []
  assert dry.stdout

  # What it printed, pasted into a shell, calls what the script itself calls.
  (launch.home / "calls").unlink(missing_ok=True)
  assert launch(script, *arguments).returncode == 0
  calls = [call for call in launch.calls() if "rev-parse" not in call]
  calls = [call for call in calls if "diff" not in call]
  (launch.home / "calls").unlink()
  subprocess.run(
    ["bash", "-euc", dry.stdout],
    env=launch.env(),
    cwd=launch.tree,
    check=True,
    capture_output=True,
  )
  assert sorted(launch.calls()) == sorted(calls)


@pytest.mark.parametrize("script", sorted(WRONG))
def test_help_says_what_the_script_is_for(launch, script):
  if script in ("slurm.sbatch", "tpu_host.sh"):
    pytest.skip("called by another script")
  result = launch(script, "--help")
  assert result.returncode == 0
  assert f"launch/{script}" in result.stdout
  assert not re.search(r"^#|set -euo", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
  "path",
  [p for p in LAUNCH.iterdir() if p.suffix in (".sh", ".sbatch")],
  ids=str,
)
def test_every_script_is_strict_and_can_be_run(path):
  text = path.read_text()
  if path.name == "common.sh":
    return
  assert "\nset -euo pipefail\n" in text
  assert os.access(path, os.X_OK)


def shell_lines(text):
  """The commands of a Markdown text's indented or fenced blocks."""
  blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
  lines = "".join(blocks).replace("\\\n", " ").splitlines()
  return [line for line in lines if line.strip()]


@pytest.mark.parametrize(
  ("guide", "count"), [("README.md", 10), ("../docs/slurm.md", 2)]
)
def test_every_launch_command_of_a_guide_runs_dry(launch, guide, count):
  lines = shell_lines((LAUNCH / guide).read_text())
  lines = [line for line in lines if line.startswith("launch/")]
  assert len(lines) >= count
  for line in lines:
    script, *arguments = shlex.split(line, comments=True)
    result = launch(script.removeprefix("launch/"), *arguments, DRY_RUN="1")
    assert result.returncode == 0, f"{line}\n{result.stderr}"
