"""Sources of boxes, what is wrong with some, and SSD's transform."""

import json
import pathlib
import pickle

import cv2
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mobilevit_jax.data import examples
from mobilevit_jax.data import sources
from mobilevit_jax.data.boxes import make_boxes
from mobilevit_jax.data.boxes import wrong
from mobilevit_jax.data.transforms import detect

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared/data/detection"
# In pixels of an image of 40 x 30: inside, and at its corner.
INSIDE, CORNER = (4.0, 6.0, 20.0, 24.0), (30.0, 20.0, 40.0, 30.0)


def write_image(path, width=40, height=30):
  path.parent.mkdir(parents=True, exist_ok=True)
  cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def write_coco(root):
  """Sparse ids, a crowd, an image without boxes, one that is absent."""
  for name in "abc":
    write_image(root / "images" / "train" / f"{name}.png")
  annotation = {"area": 7.5, "iscrowd": 0}
  content = {
    "images": [
      {"id": i, "file_name": f"{name}.png"}
      for i, name in ((9, "a"), (4, "b"), (11, "c"), (5, "gone"))
    ],
    "categories": [
      {"id": 90, "name": "zebra"},
      {"id": 2, "name": "cat"},
      {"id": 13, "name": "dog"},
    ],
    "annotations": [
      {**annotation, "id": 1, "image_id": 9, "category_id": 90}
      | {"bbox": [4, 6, 16, 18]},
      {**annotation, "id": 2, "image_id": 9, "category_id": 2}
      | {"bbox": [30, 20, 10, 10], "iscrowd": 1},
      {"id": 3, "image_id": 4, "category_id": 77, "bbox": [0, 0, 9, 9]},
    ],
  }
  file = root / "annotations" / "instances_train.json"
  file.parent.mkdir(parents=True)
  file.write_text(json.dumps(content))
  return sources.make_source("coco_json", "train", data_dir=root)


def test_coco_json(tmp_path):
  source = pickle.loads(pickle.dumps(write_coco(tmp_path)))
  assert source.class_names == ("cat", "dog", "zebra")
  assert source.category_ids == (2, 13, 90)
  assert [source.image_id(i) for i in range(4)] == [9, 4, 11, 5]
  first = source[0].target
  np.testing.assert_array_equal(first["boxes"], [INSIDE, CORNER])
  assert first["classes"].tolist() == [2, 0]
  assert first["crowd"].tolist() == [False, True]
  assert first["area"].tolist() == [7.5, 7.5]
  assert source.truth(1).classes.tolist() == [-1]
  assert source.truth(1).area.tolist() == [81]
  assert source.truth(2).boxes.shape == (0, 4)
  with pytest.raises(examples.ImageError, match=r"gone\.png: there is no such"):
    source[3]


@pytest.mark.parametrize("change", ("no json", "no key", "no image", "no file"))
def test_a_broken_json_is_named(tmp_path, change):
  write_coco(tmp_path)
  file = tmp_path / "annotations" / "instances_train.json"
  content = json.loads(file.read_text())
  if change == "no json":
    file.write_text("{")
  elif change == "no key":
    del content["images"][0]["id"]
    file.write_text(json.dumps(content))
  elif change == "no image":
    content["annotations"][0]["image_id"] = 77
    file.write_text(json.dumps(content))
  else:
    file.unlink()
  with pytest.raises(ValueError, match=r"instances_train\.json"):
    sources.make_source("coco_json", "train", data_dir=tmp_path)


def test_voc_folder(tmp_path):
  """A box's edges: VOC counts pixels from 1, and takes the last one along."""
  write_image(tmp_path / "JPEGImages" / "a.jpg")
  for folder in ("Annotations", "ImageSets/Main"):
    (tmp_path / folder).mkdir(parents=True)
  objects = "".join(
    f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox>"
    f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    "</bndbox></object>"
    for name, hard, x0, y0, x1, y1 in (
      ("dog", 0, 5, 7, 20, 24),
      ("cat", 1, 31, 21, 40, 30),
    )
  )
  file = tmp_path / "Annotations" / "a.xml"
  file.write_text(f"<annotation>{objects}</annotation>")
  (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("a\n")
  source = sources.make_source("voc_folder", "val", data_dir=tmp_path)
  assert len(source.class_names) == 20
  truth = source.truth(0)
  np.testing.assert_array_equal(truth.boxes, [INSIDE, CORNER])
  assert [source.class_names[k] for k in truth.classes] == ["dog", "cat"]
  assert truth.crowd.tolist() == [False, True]
  (tmp_path / "classes.txt").write_text("cat\n")
  source = sources.make_source("voc_folder", "val", data_dir=tmp_path)
  assert source.truth(0).classes.tolist() == [-1, 0]
  (tmp_path / "classes.txt").unlink()
  file.write_text(
    f"<annotation>{objects.replace('dog', 'axolotl')}</annotation>"
  )
  source = sources.make_source("voc_folder", "val", data_dir=tmp_path)
  assert source.class_names == ("axolotl", "cat")
  file.write_text("<annotation>")
  with pytest.raises(ValueError, match=r"a\.xml is no XML"):
    sources.make_source("voc_folder", "val", data_dir=tmp_path)


def test_yolo_folder(tmp_path):
  for name in "ab":
    write_image(tmp_path / "images" / "val" / f"{name}.png")
  labels = tmp_path / "labels" / "val"
  labels.mkdir(parents=True)
  (tmp_path / "classes.txt").write_text("cat\ndog\n")
  (labels / "a.txt").write_text(
    "1 0.3 0.5 0.4 0.6\n5 0.875 0.8333 0.25 0.3333\n"
  )
  (labels / "gone.txt").write_text("0 0.5 0.5 0.5 0.5\n")
  source = sources.make_source("yolo_folder", "val", data_dir=tmp_path)
  assert len(source) == 3 and source.class_names == ("cat", "dog")
  np.testing.assert_allclose(source.truth(0).boxes, [INSIDE, CORNER], atol=0.01)
  assert source.truth(0).classes.tolist() == [1, -1]
  np.testing.assert_allclose(source.truth(0).area, (288, 100), atol=0.1)
  assert not len(source.truth(1).boxes)
  with pytest.raises(examples.ImageError, match="no such file"):
    source[2]
  (labels / "b.txt").write_text("cat 1 2\n")
  with pytest.raises(ValueError, match=r"b\.txt: 'cat 1 2' is no class"):
    sources.make_source("yolo_folder", "val", data_dir=tmp_path)


BAD = {
  "not a number": (np.nan, 0, 5, 5, 0),
  "with swapped corners": (9, 2, 4, 8, 0),
  "without area": (4, 2, 4, 8, 0),
  "outside of the image": (30, 20, 45, 29, 0),
  "of an unknown class": (1, 1, 9, 9, -1),
}


def example(rows, width=40, height=30):
  truth = make_boxes([(*row, 0) for row in rows])
  pixels = np.zeros((height, width, 3), np.uint8)
  return examples.Example(pixels, truth.target(), 0, "x.jpg")


@pytest.mark.parametrize("what", BAD)
def test_wrong_boxes_are_named_or_mended(what):
  one = example([(*INSIDE, 1), BAD[what]])
  faults = wrong(one.target, 30, 40)
  assert {name for name, mask in faults.items() if mask.any()} == {what}
  strict = detect.DetectTransform(bad_boxes="error")
  with pytest.raises(examples.ImageError, match=rf"x\.jpg: a box {what}, \["):
    strict.decode(one)
  kept = detect.DetectTransform().decode(one).target
  expected = [INSIDE, (30, 20, 40, 29)][: 1 + (what == "outside of the image")]
  np.testing.assert_array_equal(kept["boxes"], expected)


def test_crowds_are_not_learnt():
  truth = make_boxes([(*INSIDE, 0, 0), (*CORNER, 0, 1)])
  one = examples.Example(
    np.zeros((30, 40, 3), np.uint8), truth.target(), 0, "x"
  )
  kept = detect.DetectTransform().decode(one).target
  np.testing.assert_array_equal(kept["boxes"], [INSIDE])


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32), st.booleans())
def test_boxes_move_with_the_pixels(seed, crop):
  """The bright rectangle of the result is where the box says, to a pixel."""
  rng = np.random.default_rng(seed)
  height, width = rng.integers(60, 200, 2)
  x0, y0 = rng.integers(0, (width - 30, height - 30))
  x1, y1 = np.add((x0, y0), rng.integers(25, 31, 2)).clip(0, (width, height))
  image = np.zeros((height, width, 3), np.uint8)
  image[y0:y1, x0:x1] = 255
  truth = make_boxes([(x0, y0, x1, y1, 2, 0)])
  transform = detect.DetectTransform(crop=crop, photometric="none")
  one = examples.Example(image, truth.target(), 0, "x")
  rows = transform.train(transform.decode(one), 128, rng)
  assert rows["valid"].sum() == 1 and rows["classes"][0] == 2
  bright = rows["images"][..., 0] > 127
  ys, xs = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
  seen = (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)
  np.testing.assert_allclose(rows["boxes"][0] * 128, seen, atol=1.01)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_the_crop_holds_a_centre(seed):
  rng = np.random.default_rng(seed)
  height, width = rng.integers(40, 120, 2)
  low = rng.random((4, 2)) * (width - 10, height - 10)
  boxes = np.concatenate([low, low + 10], 1)
  top, left, h, w = detect.ssd_crop(boxes, height, width, rng, min_crop=15)
  assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width
  if (h, w) != (height, width):
    assert 0.5 <= h / w <= 2 and min(h, w) >= 15
    assert h >= int(0.3 * height) and w >= int(0.3 * width)
  centre = low + 5
  inside = (centre > (left, top)) & (centre < (left + w, top + h))
  assert inside.all(axis=1).any()


def test_more_boxes_than_there_is_room_for():
  rows = [(0, 0, side, side, 0) for side in (5, 20, 10)]
  transform = detect.DetectTransform(
    crop=False, photometric="none", flip=0.0, most_boxes=2
  )
  one = transform.decode(example(rows, 20, 20))
  arrays = transform.train(one, 20, np.random.default_rng(0))
  np.testing.assert_allclose(arrays["boxes"][:, 2], (1, 0.5))


def test_an_image_without_boxes_stays():
  transform = detect.DetectTransform()
  one = transform.decode(example([]))
  arrays = transform.train(one, 32, np.random.default_rng(0))
  assert not arrays["valid"].any() and arrays["images"].shape == (32, 32, 3)


@pytest.mark.parametrize("distort", (detect.distort_v01, detect.distort_main))
def test_distortion(distort):
  """Some images stay as they are; others differ, in all three channels."""
  image = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
  results = [distort(image, np.random.default_rng(s)) for s in range(400)]
  assert {r.dtype for r in results} == {np.dtype(np.uint8)}
  assert {r.shape for r in results} == {image.shape}
  same = sum(np.abs(r.astype(int) - image).max() <= 1 for r in results)
  assert 0 < same < 100
  swapped = np.sort(image.reshape(-1, 3), axis=1)
  assert any(
    np.array_equal(np.sort(r.reshape(-1, 3), axis=1), swapped)
    and not np.array_equal(r, image)
    for r in results
  )


@pytest.mark.parametrize(
  ("field", "value"),
  (
    *(("photometric", "v9"), ("bad_boxes", "mend"), ("flip", 2)),
    *(("most_boxes", 0), ("min_crop", -1)),
  ),
)
def test_fields_are_checked(field, value):
  with pytest.raises(ValueError, match=rf"{field}={value!r} must"):
    detect.DetectTransform(**{field: value})


@pytest.mark.parametrize(
  ("name", "counts"), (("bccd", (205, 2804)), ("coco_free", (26, 181)))
)
def test_real_sets(name, counts):
  if not (SHARED / name).is_dir():
    pytest.skip("no detection sets here")
  source = sources.make_source("coco_json", "train", data_dir=SHARED / name)
  found = [source.truth(index) for index in range(len(source))]
  assert (len(source), sum(len(one.boxes) for one in found)) == counts
  transform = detect.DetectTransform()
  one = transform.decode(source[0])
  arrays = transform.train(one, 320, np.random.default_rng(0))
  assert arrays["valid"].any()
