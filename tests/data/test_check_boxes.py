"""What the check says of boxes."""

import json

import cv2
import numpy as np
import pytest

from mobilevit_jax.data import __main__ as command
from mobilevit_jax.data import check
from mobilevit_jax.data import sources

# Of an image of 64 x 64: sound ones, then one of each fault.
SOUND = [(19, 19, 45, 45), (2, 2, 3, 3)]
WRONG = {
  "with swapped corners": (30, 4, 20, 40),
  "without area": (9, 9, 9, 30),
  "outside of the image": (40, 40, 80, 60),
}


def write(root, splits=("train", "val")):
  for place, split in enumerate(splits):
    (root / "images" / split).mkdir(parents=True)
    annotations = []
    for box in [*SOUND, *WRONG.values(), (0, 0, 9, 9)]:
      x0, y0, x1, y1 = box
      row = {"image_id": 0, "bbox": (x0, y0, x1 - x0, y1 - y0)}
      row |= {"category_id": 1, "id": len(annotations)}
      annotations.append(row)
    annotations[-1]["category_id"] = 9  # unknown
    names = ("a.png", "b.png", "gone.png")
    content = {
      "images": [{"id": i, "file_name": n} for i, n in enumerate(names)],
      "categories": [{"id": 1, "name": "cat"}],
      "annotations": annotations,
    }
    for name in names[:2]:
      rng = np.random.default_rng([place, *name.encode()])
      pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
      cv2.imwrite(str(root / "images" / split / name), pixels)
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
  return {
    split: sources.make_source("coco_json", split, data_dir=root)
    for split in splits
  }


def test_every_wrong_box_is_named(tmp_path):
  report = check.check_splits(write(tmp_path))
  found = dict(report.findings)
  assert found["boxes"] == (6, 6)
  assert found["images without boxes"] == (1, 1)
  for what in (*WRONG, "of an unknown class"):
    assert found[f"boxes {what}"] == (1, 1), what
    (line,) = (w for w in report.warnings if f"1 box of train {what}" in w)
    assert "images/train/a.png [" in line
  assert "[30.0, 4.0, 20.0, 40.0]" in "\n".join(report.warnings)
  assert any("gone.png" in warning for warning in report.warnings)
  assert dict(report.classes) == {"cat": (1, 1)}
  assert not report.problems  # one class is enough


def test_absent_images_are_a_problem_where_none_is_replaced(tmp_path):
  report = check.check_splits(write(tmp_path), on_bad_image="error")
  assert any("gone.png" in problem for problem in report.problems)


def test_the_share_that_no_anchor_matches(tmp_path, capsys):
  """The box of one pixel; those that are wrong are not asked."""
  write(tmp_path)
  args = ["check", "--data=coco_json", f"--data_dir={tmp_path}", "--size=64"]
  assert command.main(args) == 0
  out = capsys.readouterr().out
  (line,) = (x for x in out.splitlines() if x.startswith("boxes that no anch"))
  assert line.split()[-2:] == ["1", "1"]
  assert "(17%) have an IoU under 0.5 with every anchor" in out


def test_fields_that_are_missing_are_an_error(tmp_path):
  with pytest.raises(ValueError, match="must be a folder"):
    sources.make_source("coco_json", "train", data_dir=tmp_path / "none")
