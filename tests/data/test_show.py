"""`python -m mobilevit_jax.data show`: a sheet of what the net is given."""

import cv2
import numpy as np
from PIL import Image
import pytest

from configs import digits
from mobilevit_jax import experiment
from mobilevit_jax.data import __main__ as data
from mobilevit_jax.data import augment

CONFIG = "configs/digits.py"


def _show(out, *more):
  return data.main(["show", CONFIG, f"--out={out}", *more])


def test_sheet_shows_the_augmented_images_of_a_step(tmp_path, capsys):
  out = tmp_path / "sheet.png"
  names = ("crop_scale", "crop_ratio")
  flags = [f"--config.transform.{name}=(1.0, 1.0)" for name in names]
  assert _show(out, "--images=4", "--step=3", *flags) == 0
  assert capsys.readouterr().out == f"{out}: 4 images from step 3 on\n"
  sheet = np.asarray(Image.open(out))
  side = sheet.shape[0] // 2
  # With crops of the whole image it is the step's first image, enlarged.
  run = experiment.build(digits.get_config())
  example = run.source[int(run.plan.ids(3)[0])]
  pixels = augment.decode(example.image, example.name)
  expected = cv2.resize(pixels, (32, 32))
  found = sheet[:side, :side]
  places = [
    (y, x)
    for y in range(side - 32)
    for x in range(side - 31)
    if np.array_equal(found[y : y + 32, x : x + 32], expected)
  ]
  assert len(places) == 1


def test_what_can_not_be_shown_is_one_line(tmp_path, capsys):
  out = tmp_path / "sheet.png"
  for more, message in (
    (["--images=0"], "--images=0 must be at least 1"),
    (["--step=999999"], "--step=999999 must be from 0 to"),
    (["--config.data.nam=x"], "'nam' Did you mean"),
    (["--config.data.flip=1"], "config.data.flip is now config.transform.flip"),
  ):
    assert _show(out, *more) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
  assert not out.exists()
  out.write_bytes(b"mine")
  assert _show(out, "--images=1") == 1
  assert "exists" in capsys.readouterr().err
  assert out.read_bytes() == b"mine"
  with pytest.raises(SystemExit):
    _show(out, "--imagse=1")
