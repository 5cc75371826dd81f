"""Sources of masks, from files that the tests write; the check's findings."""

import json
import pathlib

import numpy as np
from PIL import Image
import pytest

from mobilevit_jax.data import check
from mobilevit_jax.data import examples
from mobilevit_jax.data import sources
from mobilevit_jax.data.sources import coco_masks
from mobilevit_jax.data.sources import masks
from mobilevit_jax.tasks import segment
from tests import tiny_masks

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared/data/segmentation"


def save_pair(root, name, mask, *, mode="P", image=None):
  """An image and its mask, in the layout of a folder."""
  for folder in ("images/train", "masks/train", "images/val", "masks/val"):
    (root / folder).mkdir(parents=True, exist_ok=True)
  shape = mask.shape if image is None else image
  pixels = np.random.default_rng(len(name)).integers(0, 256, (*shape, 3))
  picture = Image.fromarray(pixels.astype(np.uint8))
  picture.save(root / f"images/{name}.jpg")
  out = Image.fromarray(mask)
  if mode == "P":
    # Colours that say nothing of the indices.
    out.putpalette(bytes(range(255, -1, -1)) * 3)
  elif mode != "L":
    out = out.convert(mode)
  out.save(root / f"masks/{name}.png")


def names(root, text='["ground", "cat", "dog"]', file="classes.json"):
  (root / file).write_text(text)


@pytest.mark.parametrize("mode", ("P", "L"))
def test_masks_are_read_as_indices(mode, tmp_path):
  names(tmp_path)
  mask = np.array([[0, 1, 2, 255], [2, 1, 0, 0]], np.uint8)
  save_pair(tmp_path, "train/a", mask, mode=mode)
  source = sources.make_source("masks", "train", data_dir=tmp_path)
  assert isinstance(source, examples.Masked)
  assert source.class_names == ("ground", "cat", "dog")
  np.testing.assert_array_equal(source.mask(0), mask)
  np.testing.assert_array_equal(source[0].target["mask"], mask)
  assert source.place(0) == (str(tmp_path / "images/train/a.jpg"), None)


def test_a_list_of_names_will_do(tmp_path):
  names(tmp_path, "ground\ncat\n\n", "classes.txt")
  save_pair(tmp_path, "train/a", np.zeros((4, 4), np.uint8))
  source = masks.open_folder(tmp_path, "train")
  assert source.class_names == ("ground", "cat")


def test_colours_and_strange_ids_are_refused_by_name(tmp_path):
  names(tmp_path)
  save_pair(tmp_path, "train/a", np.full((4, 4), 7, np.uint8))
  save_pair(tmp_path, "train/b", np.zeros((4, 4), np.uint8), mode="RGB")
  source = masks.open_folder(tmp_path, "train")
  with pytest.raises(
    examples.ImageError, match=r"a\.png: .* ids 7, .* are 0 to 2 and 255"
  ):
    source[0]
  with pytest.raises(examples.ImageError, match=r"b\.png: .* mode RGB"):
    source[1]
  (tmp_path / "masks/train/b.png").write_bytes(b"nothing")
  with pytest.raises(examples.ImageError, match=r"b\.png: .* decoded"):
    source[1]
  (tmp_path / "masks/train/b.png").unlink()
  with pytest.raises(examples.StorageError, match=r"b\.png"):
    source[1]


def test_missing_pairs_are_named(tmp_path):
  names(tmp_path)
  for name in "ab":
    save_pair(tmp_path, f"train/{name}", np.zeros((4, 4), np.uint8))
  (tmp_path / "masks/train/a.png").unlink()
  (tmp_path / "images/train/b.jpg").unlink()
  with pytest.raises(ValueError, match=r"train/a\.jpg, .*train/b\.png"):
    masks.open_folder(tmp_path, "train")
  with pytest.raises(ValueError, match="split='test' must be a folder"):
    masks.open_folder(tmp_path, "test")


@pytest.mark.parametrize(
  ("text", "message"),
  (
    ("{", "no JSON"),
    ('{"a": 1}', "list of names"),
    ('["one"]', "has 1 names"),
    (None, r"classes\.json or classes\.txt"),
  ),
)
def test_bad_lists_of_names(tmp_path, text, message):
  save_pair(tmp_path, "train/a", np.zeros((4, 4), np.uint8))
  if text:
    names(tmp_path, text)
  with pytest.raises(ValueError, match=message):
    masks.open_folder(tmp_path, "train")


def test_voc_takes_both_kinds_of_lists(tmp_path):
  lists = tmp_path / "ImageSets/Segmentation"
  lists.mkdir(parents=True)
  mask = np.array([[0, 15], [20, 255]], np.uint8)
  for folder, name in (
    ("SegmentationClass", "2007_000001"),
    ("SegmentationClassAug", "2008_000002"),
  ):
    for place in (folder, "JPEGImages"):
      (tmp_path / place).mkdir(exist_ok=True)
    picture = Image.fromarray(np.zeros((2, 2, 3), np.uint8))
    picture.save(tmp_path / f"JPEGImages/{name}.jpg")
    Image.fromarray(mask).save(tmp_path / folder / f"{name}.png")
  (lists / "val.txt").write_text("2007_000001\n2008_000002\n")
  (lists / "train_aug.txt").write_text(
    "/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png\n"
  )
  for split, count in (("val", 2), ("train_aug", 1)):
    source = sources.make_source("voc_masks", split, data_dir=tmp_path)
    assert len(source) == count
    assert len(source.class_names) == 21
    for index in range(count):
      np.testing.assert_array_equal(source.mask(index), mask)
  (lists / "val.txt").write_text("2009_000003\n")
  with pytest.raises(ValueError, match=r"no .*2009_000003\.jpg"):
    masks.open_voc(tmp_path, "val")
  with pytest.raises(ValueError, match="split='trainval' needs the list"):
    masks.open_voc(tmp_path, "trainval")


def test_ade20k_ignores_other_and_counts_from_zero(tmp_path):
  for folder in ("images/training", "annotations/training"):
    (tmp_path / folder).mkdir(parents=True)
  mask = np.array([[0, 1], [150, 2]], np.uint8)
  Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(
    tmp_path / "images/training/a.jpg"
  )
  Image.fromarray(mask).save(tmp_path / "annotations/training/a.png")
  rows = [f"{i}\t0.1\t1\t1\tname{i}, other{i}" for i in range(1, 151)]
  text = "\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows])
  (tmp_path / "objectInfo150.txt").write_text(text)
  source = sources.make_source("ade20k", "training", data_dir=tmp_path)
  np.testing.assert_array_equal(source.mask(0), [[255, 0], [149, 1]])
  assert source.class_names[:2] == ("name1", "name2")
  assert len(source.class_names) == 150
  Image.fromarray(mask + 5).save(tmp_path / "annotations/training/a.png")
  with pytest.raises(examples.ImageError, match="ids 155"):
    source.mask(0)


# Runs down the columns: of 4 x 6, the second column, and a crowd of the last.
SECOND = [4, 4, 16]
CROWD = [20, 4]


def coco(root, annotations, size=(4, 6)):
  (root / "annotations").mkdir()
  (root / "train").mkdir()
  height, width = size
  images = [
    {"id": 7, "file_name": "a.jpg", "height": height, "width": width},
    {"id": 9, "file_name": "b.jpg", "height": height, "width": width},
  ]
  for image in images:
    pixels = np.zeros((height, width, 3), np.uint8)
    Image.fromarray(pixels).save(root / "train" / image["file_name"])
  content = {"images": images, "annotations": annotations}
  file = root / "annotations/instances_train.json"
  file.write_text(json.dumps(content))


def instance(category, segmentation, *, image=7, crowd=0):
  return {
    "id": 1,
    "image_id": image,
    "category_id": category,
    "iscrowd": crowd,
    "segmentation": segmentation,
  }


def test_coco_maps_polygons_runs_and_crowds_to_voc(tmp_path):
  square = [0, 0, 3, 0, 3, 2, 0, 2]  # 3 wide, 2 high
  other = [4, 3, 6, 3, 6, 4, 4, 4]
  coco(
    tmp_path,
    [
      instance(1, [square, other]),  # person, in two parts
      instance(17, {"size": [4, 6], "counts": SECOND}),  # cat, behind it
      instance(3, {"size": [4, 6], "counts": CROWD}, crowd=1),  # cars
      instance(8, [[0, 0, 6, 0, 6, 4, 0, 4]]),  # a truck is background
      instance(8, [square], image=9),
    ],
  )
  source = sources.make_source("coco_voc21", "train", data_dir=tmp_path)
  assert len(source) == 1  # the other image has nothing of VOC's
  person, cat, car = (
    masks.VOC_CLASSES.index(name) for name in ("person", "cat", "car")
  )
  expected = np.zeros((4, 6), int)
  expected[:2, :3] = person
  expected[3, 4:] = person
  expected[2:, 1] = cat  # the earlier instance wins
  expected[:3, 5] = car
  np.testing.assert_array_equal(source.mask(0), expected)


def test_coco_says_which_instance_is_broken(tmp_path):
  runs = {"size": [4, 6], "counts": [1, 2]}
  coco(tmp_path, [instance(1, runs)])
  source = coco_masks.open_split(tmp_path, "train")
  with pytest.raises(
    examples.ImageError, match=r"a\.jpg: its instance 1 .* runs of 3 pixels"
  ):
    source[0]


def test_polygons_have_the_area_of_their_outline():
  rng = np.random.default_rng(0)
  for _ in range(20):
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radius = rng.uniform(20, 90, 12)
    corners = 100 + radius[:, None] * np.stack(
      [np.cos(angles), np.sin(angles)], axis=-1
    )
    x, y = corners.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    found = coco_masks.fill_polygon(corners, 200, 200).sum()
    assert found == pytest.approx(area, abs=60)
  # Beyond the image it is cut, and a line has no inside.
  box = np.array([[-5.0, -5], [3, -5], [3, 2], [-5, 2]])
  assert coco_masks.fill_polygon(box, 10, 10).sum() == 6
  assert not coco_masks.fill_polygon(box[:2], 10, 10).any()


def compressed(runs):
  """COCO's letters for runs, by the rule in its tools' manual."""
  text = ""
  for place, run in enumerate(runs):
    value = run - runs[place - 2] if place > 2 else run
    more = True
    while more:
      bits, value = value & 31, value >> 5
      more = value != (-1 if bits & 16 else 0)
      text += chr(48 + bits + 32 * more)
  return text


def test_compressed_runs():
  rng = np.random.default_rng(0)
  mask = rng.random((37, 53)) > 0.5
  mask[:, 20:45] = True  # a run that needs more than one letter
  flat = mask.T.ravel()
  edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
  runs = np.diff([0, *edges, flat.size]).tolist()
  runs = [0, *runs] if flat[0] else runs
  for counts in (runs, compressed(runs)):
    np.testing.assert_array_equal(coco_masks.read_runs(counts, 37, 53), mask)


def test_pets_are_one_and_their_border_is_ignored():
  class Records:
    name, class_names = "tfds:oxford_iiit_pet/train", ("a", "b")

    def read(self, index):
      return {"segmentation_mask": np.array([[[1], [2]], [[3], [2]]])}

    def __len__(self):
      return 1

    def __getitem__(self, index):
      return examples.Example(b"jpeg", {"label": 3}, index, "pet")

    def place(self, index):
      return "file", index

  source = masks.PetMasks(Records())
  np.testing.assert_array_equal(source.mask(0), [[1, 0], [255, 0]])
  example = source[0]
  assert (example.image, set(example.target)) == (b"jpeg", {"mask"})


def test_check_counts_images_of_each_class_and_names_what_is_wrong(tmp_path):
  tiny_masks.write(tmp_path)
  save_pair(tmp_path, "train/small", np.zeros((4, 9), np.uint8), image=(40, 40))
  save_pair(tmp_path, "train/strange", np.full((40, 40), 9, np.uint8))
  splits = {
    split: sources.make_source("masks", split, data_dir=tmp_path)
    for split in ("train", "val")
  }
  report = check.check_splits(splits, on_bad_image="error")
  assert dict(report.classes) == {"background": (12, 5), "disc": (12, 5)}
  assert dict(report.findings)["broken"] == (2, 0)
  assert "2 broken images in train" in report.refusal()
  scans = check.scan.scan(splits["train"]).errors
  assert any("its mask has 4 x 9 pixels" in text for text in scans.values())
  assert any("the ids 9, which are of no class" in t for t in scans.values())
  for name in ("small", "strange"):
    (tmp_path / f"masks/train/{name}.png").unlink()
    (tmp_path / f"images/train/{name}.jpg").unlink()
  splits["train"] = masks.open_folder(tmp_path, "train")
  assert not check.check_splits(splits).refusal()


def test_a_rare_class_is_no_reason_to_refuse(tmp_path):
  names(tmp_path)
  for index in range(3):
    for split in ("train", "val"):
      mask = np.random.default_rng(index).integers(0, 2, (40, 40))
      save_pair(
        tmp_path, f"{split}/{split}{'x' * index}", mask.astype(np.uint8)
      )
  splits = {s: masks.open_folder(tmp_path, s) for s in ("train", "val")}
  report = check.check_splits(splits)
  assert dict(report.classes)["dog"] == (0, 0)
  assert not report.refusal()


@pytest.mark.parametrize(
  ("name", "counts"), (("nuclei", (320, 80)), ("coco_voc21", (26, 27)))
)
def test_real_folders(name, counts):
  if not (DATA / name).is_dir():
    pytest.skip("no masks here")
  for split, count in zip(("train", "val"), counts, strict=True):
    source = masks.open_folder(DATA / name, split)
    assert len(source) == count
    meter = segment.Confusion(source, len(source.class_names))
    for index in range(0, count, 9):
      truth = source.mask(index)
      found = np.where(truth == 255, 0, truth)
      meter.add({"ids": np.array([index]), "classes": found[None]})
    assert meter.result()["miou"] == 1
