"""The tiny ImageNet, prepared once for all tests here: it takes half a minute."""

import pathlib

import pytest

from tests import tiny_imagenet


@pytest.fixture(scope="session")
def tiny_imagenet_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A `data_dir` with a prepared `imagenet2012`."""
  return tiny_imagenet.prepare(tmp_path_factory.mktemp("tfds") / "data")
