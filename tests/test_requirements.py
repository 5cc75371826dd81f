"""The lock file holds a tested version of everything, by hash."""

import pathlib
import re

from packaging.requirements import Requirement

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
