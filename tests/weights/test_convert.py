"""The `convert` command."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from mobilevit_jax import create_model
from mobilevit_jax.models import net
from mobilevit_jax.weights import __main__ as convert
from mobilevit_jax.weights import names
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import source
from mobilevit_jax.weights import trees

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  """A model's tensors, and a file of them in timm's names."""
  model = create_model("mobilevit_xxs", num_classes=5)
  path = tmp_path_factory.mktemp("weights") / "timm.safetensors"
  save_weights(model, path, to="timm", labels=list("abcde"))
  return trees.flat_model(model), path


def test_through_every_dialect_and_back(weights, tmp_path, capsys):
  tensors, path = weights
  steps = (
    ("cvnets.npz", "cvnets"),
    ("folder", "hf"),
    ("timm.safetensors", "timm"),
    ("ours.safetensors", "jax"),
  )
  for target, dialect in steps:
    args = [str(path), str(tmp_path / target), f"--to={dialect}"]
    assert convert.main(args) == 0
    assert f"-> {dialect}" in capsys.readouterr().out
    path = tmp_path / target
  found = source.read_weights(path).tensors
  assert len(found) == len(tensors)
  for path, value in tensors.items():
    np.testing.assert_array_equal(found[net.public_name(path)], value, path)


def test_labels_go_along(weights, tmp_path):
  target = tmp_path / "folder"
  assert convert.main([str(weights[1]), str(target), "--to=hf"]) == 0
  assert source.read_weights(target).labels == tuple("abcde")


def test_does_not_overwrite(weights, tmp_path, capsys):
  target = tmp_path / "out.safetensors"
  target.write_bytes(b"precious")
  args = [str(weights[1]), str(target), "--to=hf"]
  assert convert.main(args) == 1
  assert "exists; --force" in capsys.readouterr().err
  assert target.read_bytes() == b"precious"
  assert convert.main([*args, "--force"]) == 0
  assert names.detect(safetensors.numpy.load_file(target)) == "hf"


@pytest.mark.parametrize("target", ("out.safetensors", "out.npz", "out"))
def test_nothing_is_left_of_a_failure(weights, tmp_path, capsys, target):
  bad = tmp_path / "bad.safetensors"
  tensors = safetensors.numpy.load_file(weights[1])
  tensors["stem.bn.bias"][3] = np.inf
  safetensors.numpy.save_file(tensors, bad)
  args = [str(bad), str(tmp_path / target), "--to=hf"]
  assert convert.main(args) == 1
  assert "stem.bn.bias holds NaN or infinity" in capsys.readouterr().err
  assert [file.name for file in tmp_path.iterdir()] == ["bad.safetensors"]


def test_nothing_is_left_of_a_failed_write(weights, tmp_path, monkeypatch):
  def full(*_args, **_kwargs):
    raise OSError("No space left on device")

  monkeypatch.setattr(safetensors.numpy, "save", full)
  for target in ("out.safetensors", "out"):
    args = [str(weights[1]), str(tmp_path / target), "--to=hf"]
    assert convert.main(args) == 1
  assert not list(tmp_path.iterdir())


def test_command_line(weights, tmp_path):
  command = [sys.executable, "-m", "mobilevit_jax.weights"]
  target = tmp_path / "out.txt"
  done = subprocess.run(
    [*command, str(weights[1]), str(target), "--to=jax"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 1
  assert "must end in .safetensors or .npz" in done.stderr
  assert "Traceback" not in done.stderr
  assert not target.exists()
