"""Files and folders appear whole, or stay as they were."""

import pytest

from mobilevit_jax import files


class Killed(BaseException):
  """Ends a process at any moment."""


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_with_its_folder(tmp_path):
  path = tmp_path / "new/a.txt"
  with files.whole(path) as part:
    part.write_text("whole")
    assert not path.exists()
    assert part.suffix == ".txt"  # formats are told by it
  assert path.read_text() == "whole"
  assert _names(path.parent) == ["a.txt"]


def test_nothing_is_replaced_unless_forced(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("old")
  with (
    pytest.raises(FileExistsError, match=r"a\.txt exists; --force"),
    files.whole(path),
  ):
    pass
  assert path.read_text() == "old"
  with files.whole(path, force=True) as part:
    part.write_text("new")
  assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError, Killed])
def test_an_error_leaves_what_there_was(tmp_path, error):
  path = tmp_path / "a.txt"
  files.write_text(path, "old")
  with pytest.raises(error), files.whole(path, force=True) as part:
    part.write_text("ha")
    raise error
  assert path.read_text() == "old"
  assert _names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced(tmp_path):
  path = tmp_path / "a.mlpackage"
  for content in ("first", "second"):
    with files.whole(path, force=True) as part:
      part.mkdir()
      (part / content).write_text(content)
  assert _names(path) == ["second"]
  assert _names(tmp_path) == ["a.mlpackage"]


def test_what_a_kill_left_is_put_right(tmp_path):
  # Killed while it wrote a part, and between a folder's two renames.
  (tmp_path / ".part-a").mkdir()
  (tmp_path / ".part-a/half").write_text("h")
  (tmp_path / ".old-a").mkdir()
  (tmp_path / ".old-a/content").write_text("precious")
  with pytest.raises(FileExistsError), files.whole(tmp_path / "a"):
    pass
  assert (tmp_path / "a/content").read_text() == "precious"
  with files.whole(tmp_path / "a", force=True) as part:
    part.mkdir()
  assert _names(tmp_path) == ["a"]
  assert not _names(tmp_path / "a")
