"""Images with a class for each pixel: folders, VOC's and ADE20K's layouts.

A mask is uint8 `[h, w]`: a class of each pixel, or `IGNORED`. Files of masks
are read as indices: of a palette image the indices, never its colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import io
import json
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from mobilevit_jax import config
from mobilevit_jax.data import examples

IGNORED = 255
_IMAGES = (".jpg", ".jpeg", ".png")
_NAMED = 3  # files named in an error
# Pascal VOC's classes in its order (Everingham et al. 2010).
VOC_CLASSES = (
  "background",
  "aeroplane",
  "bicycle",
  "bird",
  "boat",
  "bottle",
  "bus",
  "car",
  "cat",
  "chair",
  "cow",
  "diningtable",
  "dog",
  "horse",
  "motorbike",
  "person",
  "pottedplant",
  "sheep",
  "sofa",
  "train",
  "tvmonitor",
)
_ADE_CLASSES = 150


def read_indices(data: bytes, name: str) -> np.ndarray:
  """The indices in a mask's file, int32 `[h, w]`; no colour is looked at.

  Raises:
    examples.ImageError: if it can't be decoded, or holds colours.
  """
  try:
    # Palette images must not be converted: Pillow would give their colours.
    with Image.open(io.BytesIO(data)) as image:
      # One index a pixel: bilevel, grey of 8 or 16 bits, or a palette.
      if image.mode not in ("1", "L", "P", "I;16", "I"):
        raise examples.ImageError(
          f"{name}: a mask of mode {image.mode} holds colours; it must hold "
          "one index a pixel (a grey or a palette PNG)"
        )
      return np.asarray(image).astype(np.int32)
  except (OSError, SyntaxError, ValueError) as error:
    if isinstance(error, examples.ImageError):
      raise
    raise examples.ImageError(
      f"{name}: the mask cannot be decoded: {error}"
    ) from error


def to_classes(
  indices: np.ndarray, classes: Mapping[int, int], name: str
) -> np.ndarray:
  """A mask, uint8 `[h, w]`, of the indices in its file.

  Args:
    indices: int `[h, w]`, or `[h, w, 1]`.
    classes: index to class, or to `IGNORED`.
    name: of the mask, for errors.

  Raises:
    examples.ImageError: naming the indices that are none of `classes`.
  """
  # TFDS gives masks with a last axis of one channel.
  indices = indices[..., 0] if indices.ndim == 3 else indices
  found = np.unique(indices).tolist()
  if unknown := [index for index in found if index not in classes]:
    shown = ", ".join(map(str, unknown[:_NAMED]))
    more = f" and {len(unknown) - _NAMED} more" * (len(unknown) > _NAMED)
    raise examples.ImageError(
      f"{name}: the mask has the ids {shown}{more}, which are of no class; "
      f"allowed are {min(classes)} to {max(set(classes) - {IGNORED})}"
      + f" and {IGNORED}"
      * (IGNORED in classes)
    )
  # A table from index to class: one look-up for all pixels at once.
  lookup = np.zeros(max(found) + 1, np.uint8)
  for index in found:
    lookup[index] = classes[index]
  return lookup[indices]


class MaskSource:
  """Files of images and of their masks, read when they are asked for."""

  def __init__(
    self,
    name: str,
    pairs: Sequence[tuple[str, str]],
    class_names: Sequence[str],
    classes: Mapping[int, int] | None = None,
  ):
    """A source of files.

    Args:
      name: of the source.
      pairs: paths of images and masks.
      class_names: of the classes, the background's first if there is one.
      classes: see `to_classes`; by default an index is its class.
    """
    self.name, self.class_names = name, tuple(class_names)
    # By default an index is a class, and 255 is ignored.
    own = {index: index for index in (*range(len(class_names)), IGNORED)}
    self._classes = dict(classes or own)
    # Paths alone: Grain's workers each get a copy of the source.
    self._pairs = [*pairs]

  def __len__(self) -> int:
    """Number of images."""
    return len(self._pairs)

  def __getitem__(self, index: int) -> examples.Example:
    """The image, encoded, with its `mask` as target."""
    path = self._pairs[index][0]
    target = {"mask": self.mask(index)}
    return examples.Example(_read(path), target, index, path)

  def mask(self, index: int) -> np.ndarray:
    """The truth of an image, uint8 `[h, w]`, at its original size."""
    path = self._pairs[index][1]
    return to_classes(read_indices(_read(path), path), self._classes, path)

  def place(self, index: int) -> tuple[str, None]:
    """The file of an image."""
    return self._pairs[index][0], None


def _read(path: str) -> bytes:
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise examples.StorageError(
      f"{path}: cannot be read: {error.strerror}"
    ) from error


def root_of(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
  """The folder of a data set; `ValueError` if it is none."""
  if data_dir is None:
    raise ValueError("data_dir=None must be the folder to read")
  # A folder in a configuration may begin with ~.
  root = pathlib.Path(data_dir).expanduser()
  if not root.is_dir():
    raise ValueError(f"data_dir={str(data_dir)!r} must be a folder")
  return root


def open_folder(
  data_dir: str | os.PathLike[str] | None, split: str
) -> MaskSource:
  """`images/SPLIT/NAME.jpg` with `masks/SPLIT/NAME.png` and the classes' names.

  The names are in `classes.json`, a list, or in `classes.txt`, one a line; a
  mask's index is a name's number from 0, or 255 for pixels to ignore.

  Args:
    data_dir: the folder.
    split: a sub-folder of `images` and of `masks`.

  Returns:
    The source.

  Raises:
    ValueError: if something of that is missing; it names images without a
      mask, and masks without an image.
  """
  root = root_of(data_dir)
  return MaskSource(
    f"masks/{split}", _pairs(root, "images", "masks", split), _names(root)
  )


def _names(root: pathlib.Path) -> list[str]:
  if (file := root / "classes.json").is_file():
    try:
      names = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
      raise ValueError(f"{file} is no JSON: {error}") from error
  elif (file := root / "classes.txt").is_file():
    lines = file.read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip()]
  else:
    raise ValueError(
      f"data_dir={str(root)!r} must hold classes.json or classes.txt, the "
      "names of the masks' indices from 0"
    )
  if not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
    raise ValueError(f"{file} must hold a list of names")
  if not 2 <= len(names) < IGNORED:
    raise ValueError(
      f"{file} has {len(names)} names; there must be from 2 to {IGNORED - 1}"
    )
  return names


def _pairs(
  root: pathlib.Path, images: str, masks: str, split: str
) -> list[tuple[str, str]]:
  """Images and masks of equal names, in the names' order."""
  found: list[dict[str, pathlib.Path]] = []
  for folder, endings in ((images, _IMAGES), (masks, (".png",))):
    where = root / folder / split
    if not split or not where.is_dir():
      raise ValueError(f"split={split!r} must be a folder {where}")
    found.append(
      {
        path.stem: path
        for path in sorted(where.iterdir())
        if path.suffix.lower() in endings and not path.name.startswith(".")
      }
    )
  # Files are paired by their names without endings.
  pictures, truths = found
  # Names that only one of the two folders has.
  if alone := sorted(pictures.keys() ^ truths.keys()):
    named = [str(pictures.get(n) or truths[n]) for n in alone[:_NAMED]]
    more = f" and {len(alone) - _NAMED} more" * (len(alone) > _NAMED)
    raise ValueError(
      f"each image of split={split!r} needs a mask of the same name, and each "
      f"mask an image; alone are {', '.join(named)}{more}"
    )
  if not pictures:
    raise ValueError(f"split={split!r} must hold images; {root} has none")
  return [(str(pictures[n]), str(truths[n])) for n in sorted(pictures)]


def open_voc(data_dir: str | os.PathLike[str] | None, split: str) -> MaskSource:
  """Pascal VOC 2012 as it is unpacked, with SBD's masks where they are asked.

  A list `ImageSets/Segmentation/SPLIT.txt` has a name a line, whose mask is in
  `SegmentationClass`, or else in `SegmentationClassAug` (SBD, Hariharan et al.
  2011); or, as the lists of "train_aug" do, the paths of image and mask from
  the folder on.

  Args:
    data_dir: the folder `VOC2012`.
    split: `train`, `val` or another list's name.

  Raises:
    ValueError: if the list or a file of it is missing.
  """
  root = root_of(data_dir)
  file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
  if not file.is_file():
    raise ValueError(f"split={split!r} needs the list {file}")
  pairs = []
  for line in file.read_text(encoding="utf-8").splitlines():
    # Two layouts: a name, or the two paths of "train_aug".
    words = line.split()
    if len(words) == 2:
      image, mask = (root / word.lstrip("/") for word in words)
    elif len(words) == 1:
      image = root / "JPEGImages" / f"{words[0]}.jpg"
      mask = root / "SegmentationClass" / f"{words[0]}.png"
      if not mask.is_file():
        mask = root / "SegmentationClassAug" / f"{words[0]}.png"
    else:
      continue
    for path in (image, mask):
      if not path.is_file():
        raise ValueError(f"{file} names {words[0]}, and there is no {path}")
    pairs.append((str(image), str(mask)))
  if not pairs:
    raise ValueError(f"{file} names no image")
  return MaskSource(f"voc/{split}", pairs, VOC_CLASSES)


def open_ade20k(
  data_dir: str | os.PathLike[str] | None, split: str
) -> MaskSource:
  """ADE20K's 150 classes, as `ADEChallengeData2016` is unpacked.

  Index 0 is "other" and ignored; index i is class i - 1.

  Args:
    data_dir: that folder.
    split: `training` or `validation`.

  Raises:
    ValueError: if something is missing.
  """
  root = root_of(data_dir)
  pairs = _pairs(root, "images", "annotations", split)
  # The list of names is another download; without it numbers must do.
  names = [f"class {index}" for index in range(_ADE_CLASSES)]
  if (table := root / "objectInfo150.txt").is_file():
    # A header line, then ratio, counts and the names, by tabs.
    rows = table.read_text(encoding="utf-8").splitlines()[1:]
    # The last column has synonyms, the first of which is the usual name.
    last = [row.split("\t")[-1].split(",")[0].strip() for row in rows if row]
    if len(last) != _ADE_CLASSES:
      raise ValueError(f"{table} has {len(last)} rows, not {_ADE_CLASSES}")
    names = last
  # mIoU of ADE20K is over 150 classes: 0, other, is none of them.
  classes = {0: IGNORED} | {i + 1: i for i in range(_ADE_CLASSES)}
  return MaskSource(f"ade20k/{split}", pairs, names, classes)


class PetMasks:
  """TFDS's `oxford_iiit_pet`: 1 is the pet, 2 the background, 3 the border."""

  class_names: tuple[str, ...] = ("background", "pet")

  def __init__(self, source: Any):
    """`source` is TFDS's, whose records have a `segmentation_mask`."""
    self.name, self._source = f"{source.name}, masks", source

  def __len__(self) -> int:
    """Number of images."""
    return len(self._source)

  def __getitem__(self, index: int) -> examples.Example:
    """The image, encoded, with its `mask` as target."""
    example = self._source[index]
    target = {"mask": self.mask(index)}
    return examples.Example(example.image, target, index, example.name)

  def mask(self, index: int) -> np.ndarray:
    """The truth of an image, uint8 `[h, w]`; the border is ignored."""
    record = self._source.read(index)
    classes = {1: 1, 2: 0, 3: IGNORED}
    name = examples.located(self._source, index)
    return to_classes(record["segmentation_mask"], classes, name)

  def place(self, index: int) -> tuple[str, int | None]:
    """The file of an image, and its record there."""
    return self._source.place(index)


def open_pets(data_dir: str | os.PathLike[str] | None, split: str) -> PetMasks:
  """The masks of TFDS's `oxford_iiit_pet`, which must be prepared already.

  Args:
    data_dir: where TFDS keeps its sets; None for its default.
    split: any of TFDS's split expressions.
  """
  # Imported late: it takes seconds, and only this set needs it.
  config.need("tensorflow_datasets", "tfds", "pet_masks")
  from mobilevit_jax.data.sources import tfds

  name = "oxford_iiit_pet"
  return PetMasks(
    tfds.open_split(name, split, data_dir=data_dir, prepare=False)
  )
