"""Versions are named alike everywhere, and the lock file holds each by hash."""

import importlib.util
import pathlib
import re
import tomllib

from packaging.requirements import Requirement
import pytest
import yaml

import mobilevit_jax
from mobilevit_jax import config
from mobilevit_jax.data import __main__ as data
from mobilevit_jax.data import sources
from mobilevit_jax.weights import labels
from mobilevit_jax.weights import source

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")


def _requirements(text):
  lines = (line.partition(" #")[0].strip() for line in text.splitlines())
  return [Requirement(x) for x in lines if x and not x.startswith(("#", "-"))]


def _locked():
  text = (ROOT / "requirements.lock").read_text()
  entries = re.findall(r"^([a-z0-9].*?) \\\n((?:    --hash=.*\n)+)", text, re.M)
  pinned = re.findall(r"^[a-z0-9].*==", text, re.M)
  assert len(entries) == len(pinned) > 50, "a package without a hash"
  for _, hashes in entries:
    assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", hashes)
  return [Requirement(entry) for entry, _ in entries]


def _name(requirement):
  return re.sub(r"[-_.]+", "-", requirement.name).lower()


def test_lock_holds_every_requirement_in_its_range():
  locked = _locked()
  for wanted in _requirements((ROOT / "requirements.txt").read_text()):
    for python in PYTHONS:
      where = {"python_version": python, "python_full_version": f"{python}.0"}
      if wanted.marker and not wanted.marker.evaluate(where):
        continue
      found = [
        one
        for one in locked
        if _name(one) == _name(wanted)
        and (one.marker is None or one.marker.evaluate(where))
      ]
      assert len(found) == 1, (str(wanted), python)
      (pin,) = found[0].specifier
      assert pin.operator == "=="
      assert wanted.specifier.contains(pin.version), str(found[0])


def _project():
  return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _same(lines):
  return {str(one) for one in _requirements("\n".join(lines))}


def _file(name):
  return {str(one) for one in _requirements((ROOT / name).read_text())}


def test_package_and_files_name_the_same_versions():
  project = _project()
  extras = {
    name: {line for line in _same(lines) if not line.startswith("mobilevit")}
    for name, lines in project["optional-dependencies"].items()
  }
  optional = ("tfds", "gcs", "detection", "tensorboard")
  whole = _same(project["dependencies"]).union(*(extras[n] for n in optional))
  assert _file("requirements.txt") == whole
  for name in ("dev", "docs", "export", "parity"):
    assert _file(f"requirements-{name}.txt") == extras[name]
  # What exports a file is no Node and no linter.
  assert not extras["export"] & extras["dev"]
  assert (
    "requirements-dev" not in (ROOT / "requirements-export.txt").read_text()
  )


def test_version_is_said_in_one_place():
  citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  assert citation["version"] == mobilevit_jax.__version__
  assert _project()["dynamic"] == ["version"]


def test_base_has_no_tensorflow_and_every_extra_is_named(monkeypatch, capsys):
  base = {_name(Requirement(line)) for line in _project()["dependencies"]}
  assert not [name for name in base if name.startswith("tensorflow")]
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *rest: None if "tensorflow" in name else found(name, *rest),
  )
  install = r"pip install .mobilevit-jax\[tfds\]"
  for name in ("imagenet2012", "pet_masks"):
    with pytest.raises(config.ConfigError, match=install):
      sources.make_source(name, "train")
  with pytest.raises(config.ConfigError, match=install):
    labels.find_class_names("tfds:mnist", source.FoundWeights("x", {}), 10)
  numbers = labels.find_class_names(None, source.FoundWeights("x", {}), 1000)
  assert numbers[999] == "class 999"
  assert data.main(["verify", "x"]) == 1
  assert re.search(install, capsys.readouterr().err)
