"""Weights that come with the package: what they are, and that they know it."""

import numpy as np
import pytest

from mobilevit_jax.data import sources
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.weights import io
from mobilevit_jax.weights import source
from mobilevit_jax.weights import teaching


@pytest.mark.parametrize("name", teaching.TEACHING)
def test_every_row_has_a_small_file_and_says_what_it_is(name):
  path, row = teaching.find(f"teaching:{name}")
  assert path.stat().st_size < 4e6
  assert all(vars(row).values())
  # The last command writes it, and what goes before makes it.
  assert f"weights/teaching/{name}.safetensors" in row.commands[-1]
  found = source.read_weights(f"teaching:{name}")
  assert {value.dtype for value in found.tensors.values()} == {
    np.dtype(np.float16)
  }
  presets.choose("jax", found.crop, preset=None, size=None)


def test_files_and_rows_are_the_same():
  folder = teaching.find("teaching:digits")[0].parent
  files = {path.stem for path in folder.glob("*.safetensors")}
  assert files == teaching.TEACHING.keys()


def test_digits_know_the_digits_that_they_were_not_trained_on():
  found = source.read_weights("teaching:digits")
  assert found.labels == tuple("0123456789")
  model = io.build_model(found)
  held_out = sources.make_source("digits", "test")
  images = np.stack(
    [presets.preprocess(held_out[i].image, "cvnets", 32) for i in range(64)]
  )
  logits = np.asarray(model(images / np.float32(255)))
  assert logits.dtype == np.float32
  right = logits.argmax(-1) == held_out.labels()[:64]
  assert right.mean() > 0.95


def test_unknown_teaching_weights_are_refused():
  with pytest.raises(ValueError, match=r"only teaching:digits, "):
    source.read_weights("teaching:flowers")
