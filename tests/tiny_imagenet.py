"""A tiny `imagenet2012`, prepared from archives that are made here.

`python -m tests.tiny_imagenet FOLDER` prepares one: the two official archives
with a few small images, labelled by the synsets they are filed under.
"""

import io
import pathlib
import sys
import tarfile

import cv2
import numpy as np

# Synsets at the ends and in the middle of the list of classes, to a label.
SYNSETS = {"n01440764": 0, "n03063599": 504, "n15075141": 999}
IMAGES_PER_SYNSET = 6
NUM_VAL = 7
# Labels of the first validation images, as in the official list.
VAL_LABELS = (65, 970, 230, 809, 516, 57, 334)


def image(name: str) -> bytes:
  """The JPEG that is stored under that file name."""
  rng = np.random.default_rng(list(name.encode()))
  height, width = rng.integers(24, 64, size=2)
  coarse = rng.integers(256, size=(4, 4, 3)).astype(np.uint8)
  pixels = cv2.resize(coarse, (int(width), int(height)))
  return cv2.imencode(".jpg", pixels)[1].tobytes()


def train_names(synset: str) -> list[str]:
  """File names of a synset's training images."""
  return [f"{synset}_{number}.JPEG" for number in range(IMAGES_PER_SYNSET)]


def val_names() -> list[str]:
  """File names of the validation images."""
  return [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, NUM_VAL + 1)]


def write_archives(data_dir: pathlib.Path) -> None:
  """Writes the two archives to where TFDS looks for them."""
  manual = data_dir / "downloads" / "manual"
  manual.mkdir(parents=True)
  parts = {
    f"{synset}.tar": _tar({name: image(name) for name in train_names(synset)})
    for synset in SYNSETS
  }
  (manual / "ILSVRC2012_img_train.tar").write_bytes(_tar(parts))
  val = {name: image(name) for name in val_names()}
  (manual / "ILSVRC2012_img_val.tar").write_bytes(_tar(val))


def prepare(data_dir: pathlib.Path) -> pathlib.Path:
  """Prepares `imagenet2012` in a new folder, in ArrayRecord files.

  Args:
    data_dir: the folder, which is made.

  Returns:
    The folder, to be given as `data_dir`.
  """
  from mobilevit_jax.data import sources

  write_archives(data_dir)
  sources.make_source("imagenet2012", "train", data_dir=data_dir)
  return data_dir


def _tar(files: dict[str, bytes]) -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as archive:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return buffer.getvalue()


if __name__ == "__main__":
  prepare(pathlib.Path(sys.argv[1]))
