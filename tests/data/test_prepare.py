"""`python -m mobilevit_jax.data prepare`: before, during and after."""

import collections
import shutil
import signal
import subprocess
import sys

from etils import epath
import pytest

from mobilevit_jax.data import __main__ as command
from mobilevit_jax.data.prepare import download

NAME = "imagenet2012"
Usage = collections.namedtuple("Usage", "total used free")
# The 18 images of the training split lie in 3 archives within the archive: the
# end comes in the validation split.
KILLED = """
import os, signal, sys, tarfile
from mobilevit_jax.data import __main__ as command

extract, files = tarfile.TarFile.extractfile, iter(range(3 + 18 + 2))

def extract_or_die(self, member):
  if next(files, None) is None:
    os.kill(os.getpid(), signal.SIGKILL)
  return extract(self, member)

tarfile.TarFile.extractfile = extract_or_die
command.main(sys.argv[1:])
"""


def test_finished_set_is_left_alone(prepared, capsys):
  files = {f: f.stat().st_mtime_ns for f in prepared.iterdir()}
  names = {file.name for file in files}
  assert f"{NAME}-train.array_record-00001-of-00002" in names
  assert command.main([NAME, f"--data_dir={prepared.parents[1]}"]) == 0
  assert "train, 18 images in 2 files" in capsys.readouterr().out
  assert files == {f: f.stat().st_mtime_ns for f in prepared.iterdir()}


def test_too_little_space_is_said_before_anything_is_written(
  archives, tmp_path, monkeypatch, capsys
):
  size = sum(file.stat().st_size for file in archives.iterdir())
  monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, size - 1))
  out = tmp_path / "new" / "out"
  args = [NAME, f"--manual_dir={archives}", f"--data_dir={out}"]
  assert command.main(args) == 1
  message = capsys.readouterr().err
  assert f"{out}/{NAME}/5.1.0 needs 0.0 GB ({size:,} bytes)" in message
  assert f"{tmp_path} has 0.0 GB ({size - 1:,} bytes) free" in message
  assert not out.exists()
  download.check_space(tmp_path, size - 1)
  download.check_space("gs://bucket/data", 10**18)


def test_leftovers_are_reported_and_removed_on_request(prepared, capsys):
  args = [NAME, f"--data_dir={prepared.parents[1]}"]
  killed = prepared.with_name("incomplete.0AZ9XY_5.1.0")
  others = ["incomplete.convert_5.1.0", "incomplete.0AZ9XY_5.0.0"]
  for name in (killed.name, *others):
    prepared.with_name(name).mkdir()
  (killed / "bucket_000.tmp").write_bytes(b"12345")
  assert command.main(args) == 0
  lines = capsys.readouterr().out.splitlines()
  assert f"{killed}, 0.0 GB (5 bytes); --remove_leftovers" in lines[0]
  assert lines[1:] == [
    f"{prepared}: train, 18 images in 2 files",
    f"{prepared}: validation, 7 images in 2 files",
  ]
  assert command.main([*args, "--remove_leftovers"]) == 0
  assert not killed.exists()
  for name in others:
    prepared.with_name(name).rmdir()


@pytest.mark.slow
def test_killed_run_leaves_what_the_next_one_removes(
  archives, tmp_path, capsys
):
  args = [NAME, f"--manual_dir={archives}", f"--data_dir={tmp_path / 'out'}"]
  run = subprocess.run([sys.executable, "-c", KILLED, *args])
  assert run.returncode == -signal.SIGKILL
  (left,) = (tmp_path / "out" / NAME).iterdir()
  size = sum(file.stat().st_size for file in left.iterdir())
  assert size
  with download.only_run(epath.Path(left.parent)):
    assert command.main(args) == 1
  seen = capsys.readouterr()
  what = f"{left}, 0.0 GB ({size:,} bytes)"
  assert f"in use by one at work: {what}; --remove_leftovers" in seen.out
  assert f"data: another run is at work in {left.parent}" in seen.err
  assert command.main([*args, "--remove_leftovers"]) == 0
  seen = capsys.readouterr()
  assert f"removing what an earlier run left: {what}" in seen.out
  # TFDS says how far it is.
  assert "Generating train examples" in seen.err
  assert [file.name for file in left.parent.iterdir()] == ["5.1.0"]


@pytest.mark.parametrize(
  ("split", "damage", "message"),
  [
    ("train", lambda tar: tar.rstrip(b"\0"), "its end is missing"),
    ("train", lambda tar: tar[:-20000], "its end is missing"),
    ("val", lambda tar: b"", "its end is missing"),
    # What follows the first header, as if it were one.
    ("train", lambda tar: tar[512:], "'imagenet2012' can't be prepared: "),
  ],
)
def test_broken_archive_is_refused(
  archives, tmp_path, capsys, split, damage, message
):
  for file in archives.iterdir():
    shutil.copy(file, tmp_path)
  file = tmp_path / f"ILSVRC2012_img_{split}.tar"
  file.write_bytes(damage(file.read_bytes()))
  out = tmp_path / "out"
  args = [NAME, f"--manual_dir={tmp_path}", f"--data_dir={out}"]
  assert command.main(args) == 1
  assert message in capsys.readouterr().err
  assert not (out / NAME).exists()
