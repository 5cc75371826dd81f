"""What is made once for all tests of the data."""

import pathlib

import pytest

from mobilevit_jax.data import __main__ as command
from mobilevit_jax.data import sources
from tests import tiny_imagenet
from tests.data import tiny_batches


@pytest.fixture(scope="session")
def tiny_imagenet_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A `data_dir` with a prepared `imagenet2012`, which takes 20 s."""
  return tiny_imagenet.prepare(tmp_path_factory.mktemp("tfds") / "data")


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The folder of the two official archives, with a few small images."""
  base = tmp_path_factory.mktemp("archives")
  tiny_imagenet.write_archives(base)
  return base / "downloads" / "manual"


@pytest.fixture(scope="session")
def prepared(
  archives: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
  """The version's folder that the command makes, in two files a split."""
  out = tmp_path_factory.mktemp("prepared")
  args = [f"--manual_dir={archives}", f"--data_dir={out}", "--num_shards=2"]
  assert command.main(["prepare", "imagenet2012", *args]) == 0
  return out / "imagenet2012" / "5.1.0"


@pytest.fixture(scope="session")
def source(tmp_path_factory):
  """A folder of pictures of many shapes."""
  data_dir = tmp_path_factory.mktemp("images")
  tiny_batches.write_images(data_dir / "train", tiny_batches.NUM_IMAGES)
  return sources.make_source("folder", "train", data_dir=data_dir)


@pytest.fixture(scope="session")
def expected(source):
  """All of the plan's batches, one image after the other."""
  return tiny_batches.train(source, num_threads=1)
