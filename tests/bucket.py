"""A bucket that is nowhere: what gs:// goes through, over memory."""

from etils import epath
import fsspec
import pytest


def path(monkeypatch: pytest.MonkeyPatch) -> epath.Path:
  """An empty folder, `gs://bucket/run`, that fsspec reads."""
  memory = fsspec.filesystem("memory")
  backend = epath.backend.fsspec_backend
  monkeypatch.setattr(type(backend), "fs", lambda self, path: memory)
  made = epath.Path("gs://bucket/run")
  monkeypatch.setattr(type(made), "_backend", backend)
  memory.store.clear()
  memory.pseudo_dirs[:] = [""]
  made.mkdir(parents=True)
  return made
