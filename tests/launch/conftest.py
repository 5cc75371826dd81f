import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = [
  "docker",
  "gcloud",
  "git",
  "kubectl",
  "scontrol",
  "squeue",
  "srun",
  "sbatch",
  "sky",
  "sudo",
]
TOOLS += ["systemctl", "uv", "xpk"]
# All the rest that the scripts may use: the real tools are out of reach.
SYSTEM = [
  "basename",
  "bash",
  "dirname",
  "env",
  "grep",
  "head",
  "id",
  "mkdir",
  "sed",
  "seq",
  "sleep",
]


class Launch:
  """The scripts in a copy of the tree, with fakes of what they call."""

  def __init__(self, home):
    self.home = home
    self.tree = home / "tree"
    for folder in ("launch", "configs"):
      shutil.copytree(ROOT / folder, self.tree / folder)
    self.path = home / "path"
    self.path.mkdir()
    fake = pathlib.Path(__file__).with_name("fake_tool.py").read_text()
    for tool in TOOLS:
      (self.path / tool).write_text(f"#!{sys.executable} -SE\n{fake}")
      (self.path / tool).chmod(0o755)
    for tool in SYSTEM:
      (self.path / tool).symlink_to(shutil.which(tool))
    self.answer()

  def answer(self, *answers):
    """What the fakes say: (part of the command, exit code, output)."""
    (self.home / "answers").write_text(json.dumps(answers))

  def env(self, **variables):
    return {
      "PATH": str(self.path),
      "HOME": str(self.home),
      "FAKE": str(self.home),
      "POLL_SECONDS": "0",
      **variables,
    }

  def __call__(self, script, *arguments, **variables):
    return subprocess.run(
      [self.tree / "launch" / script, *arguments],
      env=self.env(**variables),
      cwd=self.home,
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )

  def calls(self, *tools):
    """The commands that the fakes got, of these tools or of all."""
    log = self.home / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    calls = [json.loads(line) for line in lines]
    return [call for call in calls if not tools or call[0] in tools]


@pytest.fixture
def launch(tmp_path):
  assert os.name == "posix"
  return Launch(tmp_path)
