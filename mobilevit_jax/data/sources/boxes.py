"""Images with boxes: COCO's json, Pascal VOC's XML, YOLO's text files.

Boxes are x0, y0, x1, y1 in pixels of the image, 0 at its left and upper edge.
They are given as they are written, wrong ones too: the check names those, and
the transform refuses or mends them (`data.transforms.detect`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any
from xml.etree import ElementTree

import numpy as np

from mobilevit_jax.data import examples
from mobilevit_jax.data.boxes import Boxes
from mobilevit_jax.data.boxes import make_boxes
from mobilevit_jax.data.boxes import upright_size

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
VOC_CLASSES = (
  *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
  *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person"),
  *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class BoxSource:
  """Image files with their boxes in memory."""

  def __init__(
    self,
    name: str,
    files: Sequence[str],
    truths: Sequence[Boxes],
    class_names: Sequence[str],
    *,
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int | str] | None = None,
  ):
    # In memory: COCO's 860,000 boxes are 60 MB, and a worker needs them at
    # once.
    """`files` are paths; ids are by default numbers from 1, and file names."""
    self.name, self.class_names = name, tuple(class_names)
    self.category_ids = tuple(category_ids or range(1, len(class_names) + 1))
    self._files, self._truths = [*files], [*truths]
    self._image_ids = [*image_ids] if image_ids else None

  def __len__(self) -> int:
    """Number of images."""
    return len(self._files)

  def __getitem__(self, index: int) -> examples.Example:
    """Reads the file of that number, from 0."""
    path = self._files[index]
    try:
      image = pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
      # For ever, unlike storage that fails: another image may stand in.
      raise examples.ImageError(f"{path}: there is no such file") from error
    except OSError as error:
      raise examples.StorageError(
        f"{path}: cannot be read: {error.strerror}"
      ) from error
    return examples.Example(image, self.truth(index).target(), index, path)

  def truth(self, index: int) -> Boxes:
    """What is in an image."""
    return self._truths[index]

  def image_id(self, index: int) -> int | str:
    """The file's own id of the image, or its name."""
    if self._image_ids is None:
      return pathlib.PurePath(self._files[index]).stem
    return self._image_ids[index]

  def place(self, index: int) -> tuple[str, None]:
    """The file of an image."""
    return self._files[index], None


def open_coco(data_dir: str | os.PathLike[str] | None, split: str) -> BoxSource:
  """COCO's layout: `annotations/instances_SPLIT.json`, and images.

  Images are in `images/SPLIT`, `SPLIT` or `images`, whichever is there first.
  Category ids may be sparse; sorted, they become the classes from 0. Images
  without boxes stay.

  Raises:
    ValueError: if a folder or the file is missing or is none of COCO's.
  """
  top = _folder(data_dir)
  file = top / "annotations" / f"instances_{split}.json"
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
    # Ids may have gaps (COCO's 80 classes end at 90): their order is the class.
    categories = sorted(content["categories"], key=lambda row: row["id"])
    images, annotations = content["images"], content["annotations"]
    index = {row["id"]: place for place, row in enumerate(categories)}
    rows: dict[Any, list[tuple[list[float], float]]] = {
      image["id"]: [] for image in images
    }
    for one in annotations:
      if one["image_id"] not in rows:
        raise ValueError(
          f"{file}: annotation {one['id']} is of image {one['image_id']}, "
          "which the file has not"
        )
      # COCO: x, y of the upper left corner, then width and height. An unknown
      # class becomes -1, which the check reports.
      x, y, w, h = map(float, one["bbox"])
      label, crowd = index.get(one["category_id"], -1), one.get("iscrowd", 0)
      area = float(one.get("area", w * h))
      rows[one["image_id"]].append(([x, y, x + w, y + h, label, crowd], area))
  except OSError as error:
    raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
  except (KeyError, TypeError) as error:
    raise ValueError(f"{file} is none of COCO's: no {error}") from error
  except json.JSONDecodeError as error:
    raise ValueError(f"{file} is no JSON: {error}") from error
  # The layouts that COCO and its tools unpack to.
  folders = [top / "images" / split, top / split, top / "images"]
  folder = next((f for f in folders if f.is_dir()), None)
  if folder is None:
    raise ValueError(f"data_dir={str(top)!r} must hold a folder of images")
  return BoxSource(
    f"coco_json/{split}",
    [str(folder / image["file_name"]) for image in images],
    [
      make_boxes(
        [row for row, _ in rows[image["id"]]],
        [area for _, area in rows[image["id"]]],
      )
      for image in images
    ],
    [str(row["name"]) for row in categories],
    category_ids=[int(row["id"]) for row in categories],
    image_ids=[image["id"] for image in images],
  )


def open_voc(data_dir: str | os.PathLike[str] | None, split: str) -> BoxSource:
  """Pascal VOC's layout: `Annotations`, `JPEGImages`, `ImageSets/Main`.

  `ImageSets/Main/SPLIT.txt` lists the images. Classes are the lines of
  `classes.txt`, else VOC's twenty if no other occurs in any list, else all
  names of the folder's annotations, sorted. Pixels, which VOC counts from 1,
  become edges from 0.

  Raises:
    ValueError: if a folder, a list or an annotation is missing or broken.
  """
  top = _folder(data_dir)
  names = _listed(top, split)
  objects = {name: [*_voc_objects(top, name)] for name in names}
  classes = _lines(top / "classes.txt")
  # Only where the classes aren't given: every annotation is read, since a split
  # alone may lack a class, and then the numbers of its classes would differ
  # from the training split's.
  if not classes:
    every = {
      path.stem: _voc_objects(top, path.stem)
      for path in sorted((top / "Annotations").glob("*.xml"))
    }
    seen = {label for found in every.values() for label, _, _ in found}
    classes = [*VOC_CLASSES] if seen <= {*VOC_CLASSES} else sorted(seen)
  index = {label: place for place, label in enumerate(classes)}
  return BoxSource(
    f"voc_folder/{split}",
    [_image_file(top / "JPEGImages", name) for name in names],
    [
      make_boxes(
        [
          [*box, index.get(label, -1), difficult]
          for label, box, difficult in objects[name]
        ]
      )
      for name in names
    ],
    classes,
  )


def _voc_objects(
  top: pathlib.Path, name: str
) -> Iterator[tuple[str, list[float], int]]:
  """Class, box and whether it is difficult, of each object of an image."""
  file = top / "Annotations" / f"{name}.xml"
  try:
    root = ElementTree.parse(file).getroot()
  except OSError as error:
    raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
  except ElementTree.ParseError as error:
    raise ValueError(f"{file} is no XML: {error}") from error
  for one in root.iter("object"):
    box = one.find("bndbox")
    edges = [
      None if box is None else box.findtext(edge)
      for edge in ("xmin", "ymin", "xmax", "ymax")
    ]
    try:
      x0, y0, x1, y1 = (float(edge or "") for edge in edges)
    except ValueError as error:
      raise ValueError(f"{file}: an object has no box of numbers") from error
    difficult = int(one.findtext("difficult") or 0)
    yield (
      (one.findtext("name") or "").strip(),
      # Pixel x0 of 1 begins at the edge 0, and pixel x1 ends at the edge x1.
      [x0 - 1, y0 - 1, x1, y1],
      difficult,
    )


def open_yolo(data_dir: str | os.PathLike[str] | None, split: str) -> BoxSource:
  """YOLO's layout: `images/SPLIT`, `labels/SPLIT/NAME.txt`, `classes.txt`.

  Each line of a text file is a class from 0, and a box's centre x, centre y,
  width and height as parts of the image. An image without a text file has no
  boxes. `classes.txt` has a name a line.

  Raises:
    ValueError: if a folder or `classes.txt` is missing, or a line is broken.
  """
  top = _folder(data_dir)
  folder, labels = top / "images" / split, top / "labels" / split
  classes = _lines(top / "classes.txt")
  if not (folder.is_dir() and labels.is_dir() and classes):
    raise ValueError(
      f"data_dir={str(top)!r} must hold images/{split}, labels/{split} and "
      "classes.txt with a name a line"
    )
  names = {p.stem: p for p in sorted(folder.iterdir()) if _is_image(p)}
  # Named, and absent: the check and training then say so.
  absent = {p.stem for p in labels.glob("*.txt")} - names.keys()
  names |= {name: folder / f"{name}.jpg" for name in sorted(absent)}
  return BoxSource(
    f"yolo_folder/{split}",
    [str(path) for path in names.values()],
    [
      _yolo_boxes(labels / f"{name}.txt", path, len(classes))
      for name, path in names.items()
    ],
    classes,
  )


def _yolo_boxes(file: pathlib.Path, image: pathlib.Path, count: int) -> Boxes:
  rows = []
  for line in _lines(file):
    try:
      # Further columns, such as a score, are left out.
      label, x, y, w, h = map(float, line.split()[:5])
    except ValueError as error:
      raise ValueError(f"{file}: {line!r} is no class and four numbers") from (
        error
      )
    known = label if label.is_integer() and 0 <= label < count else -1
    rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, known, 0])
  # As parts of the image; the area is in pixels, which needs the size.
  found = make_boxes(rows)
  if not rows or not image.exists():
    return found
  try:
    # Of the header alone: a set is opened without decoding an image.
    height, width = upright_size(image, str(image))
  except examples.ImageError:
    return found  # which loading the image will say
  scale = np.array([width, height, width, height], np.float64)
  boxes = found.boxes * scale
  return dataclasses.replace(
    found, boxes=boxes, area=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  )


def _folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
  if data_dir is None:
    raise ValueError("data_dir=None must be the folder to read")
  top = pathlib.Path(data_dir).expanduser()
  if not top.is_dir():
    raise ValueError(f"data_dir={str(data_dir)!r} must be a folder")
  return top


def _lines(file: pathlib.Path) -> list[str]:
  """Those of a text file that aren't blank; none if it is missing."""
  if not file.is_file():
    return []
  lines = file.read_text(encoding="utf-8").splitlines()
  return [line.strip() for line in lines if line.strip()]


def _listed(top: pathlib.Path, split: str) -> list[str]:
  file = top / "ImageSets" / "Main" / f"{split}.txt"
  names = [line.split()[0] for line in _lines(file)]
  if not names:
    raise ValueError(f"{file} must list the images of split={split!r}")
  return names


def _is_image(path: pathlib.Path) -> bool:
  return path.suffix.lower() in _EXTENSIONS and not path.name.startswith(".")


def _image_file(folder: pathlib.Path, name: str) -> str:
  """The image of that name, or the one that should be there."""
  files = (folder / f"{name}{ending}" for ending in _EXTENSIONS)
  found = next((f for f in files if f.exists()), folder / f"{name}.jpg")
  return str(found)
