"""Downloading a TFDS set and writing it as ArrayRecord files.

TFDS writes a set to a folder of another name, which gets its own at the end: a
version's folder is there in whole, or not at all. A run that is interrupted
starts anew, but for what it downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import shutil
import tarfile
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

FILE_FORMAT = "array_record"
INFO_FILE = "dataset_info.json"
_IMAGENET_TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
_TAR_END = bytes(2 * tarfile.BLOCKSIZE)  # how every archive ends


def has_boxes(features: Any) -> bool:
  """Whether a set's images come with boxes, as those of coco and voc do."""
  objects = dict(features.items()).get("objects")
  wanted = {
    "bbox": tfds.features.BBoxFeature,
    "label": tfds.features.ClassLabel,
  }
  if not isinstance(objects, tfds.features.Sequence):
    return False
  inside: Any = objects.feature
  return all(
    key in inside and isinstance(inside[key], kind)
    for key, kind in wanted.items()
  )


def check_features(name: str, features: Any) -> None:
  """Wants one image, and one class or boxes."""
  if "image" in features and has_boxes(features):
    return
  wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
  for key, kind in wanted.items():
    if key not in features or not isinstance(features[key], kind):
      raise ValueError(
        f"name={name!r} must be a set of images with one class each, in the "
        "features 'image' (Image) and 'label' (ClassLabel); it has "
        f"{', '.join(features)}"
      )


def check_folder(path: os.PathLike[str] | str, *names: str) -> epath.Path:
  """A prepared version's folder, which must have the info and these files."""
  for name in (INFO_FILE, *names):
    if not (epath.Path(path) / name).exists():
      raise ValueError(
        f"{path} must be the folder of a prepared version, such as "
        f"DIR/imagenet2012/5.1.0; it has no {name}"
      )
  return epath.Path(path)


def prepare_set(
  name: str,
  builder: Any,
  *,
  manual_dir: os.PathLike[str] | None = None,
  num_shards: int | None = None,
) -> None:
  """Prepares a data set.

  Args:
    name: what the data set was asked for as, for errors.
    builder: see `sources.tfds.make_builder`.
    manual_dir: what a person had to download; by default TFDS's own choice.
    num_shards: files for each split; by default as many as TFDS sees fit.

  Raises:
    ValueError: if something has to be downloaded by hand first, an archive is
      broken, or something else is in the way.
    OSError: if the disk has too little space, or another run is at work.
  """
  # TFDS writes beside it, and renames in the end.
  target = epath.Path(builder.data_path)
  if target.exists():
    # TFDS would take it for the set, which can't be read then.
    raise ValueError(
      f"{target} has no {INFO_FILE}, so it is no prepared set, and in the way "
      "of one; remove or rename it"
    )
  # An old version's archives may be others, so only the current one's are
  # checked.
  # TFDS refuses to prepare old versions.
  current = builder.version == builder.canonical_version
  if builder.name == "imagenet2012" and current:
    folder = epath.Path(builder.data_dir_root) / "downloads" / "manual"
    archives = _imagenet_archives(name, manual_dir or folder)
    # Records are the archives' files as they are.
    check_space(target, sum(path.stat().length for path in archives))
  config = tfds.download.DownloadConfig(
    manual_dir=manual_dir, num_shards=num_shards
  )
  try:
    # The lock is on the parent, as the folder itself doesn't exist yet.
    with only_run(target.parent):
      builder.download_and_prepare(
        file_format=FILE_FORMAT, download_config=config
      )
  except (AssertionError, tarfile.TarError) as error:
    # The first is how TFDS reports files that a person has to download.
    raise ValueError(f"name={name!r} can't be prepared: {error}") from error


def _imagenet_archives(name: str, folder: os.PathLike[str]) -> list[epath.Path]:
  """Wants both whole: TFDS would leave a split, or a part of one, out."""
  paths = [epath.Path(folder) / tar for tar in _IMAGENET_TARS]
  if missing := [path.name for path in paths if not path.exists()]:
    raise ValueError(
      f"name={name!r} is prepared from the official archives, "
      f"{' and '.join(_IMAGENET_TARS)} (https://image-net.org/download), "
      f"which must be in {folder}; missing: {', '.join(missing)}"
    )
  for path in paths:
    with path.open("rb") as file:
      file.seek(max(0, path.stat().length - len(_TAR_END)))
      # A download that stopped between two files looks whole to `tarfile`.
      if file.read() != _TAR_END:
        raise ValueError(f"{path} is a broken archive: its end is missing")
  return paths


def check_space(path: os.PathLike[str], needed: int) -> None:
  """`OSError` unless there are so many bytes for a folder that may not exist.

  What isn't on a disk (`gs://`) has space for everything.
  """
  if "://" in os.fspath(path):
    return
  existing = pathlib.Path(path).expanduser().absolute()
  while not existing.exists():
    # The last block of two of zeros is written when the archive is closed.
    existing = existing.parent
  free = shutil.disk_usage(existing).free
  if free < needed:
    raise OSError(
      f"{os.fspath(path)} needs {gigabytes(needed)}, and {existing} has "
      f"{gigabytes(free)} free: make room, or give another --data_dir"
    )


@contextlib.contextmanager
def only_run(folder: epath.Path) -> Iterator[None]:
  """Makes a folder; `OSError` if another run is at work in it.

  It goes again if the block leaves it empty.
  The kernel forgets a killed run's lock. Storage without locks (`gs://`, some
  network file systems) has no such check.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if "://" in os.fspath(folder):
    yield
    return
  # Released by the kernel when the process ends, however it ends.
  handle = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise OSError(f"another run is at work in {folder}") from error
    except OSError:
      pass  # no locks here
    yield
  finally:
    # rmdir refuses a folder that holds something, which is what is wanted.
    with contextlib.suppress(OSError):
      pathlib.Path(folder).rmdir()  # fails where there is something in it
    os.close(handle)


def gigabytes(size: int) -> str:
  """Bytes for people, and in full."""
  return f"{size / 1e9:.1f} GB ({size:,} bytes)"


def leftovers(data_path: os.PathLike[str]) -> list[tuple[epath.Path, int]]:
  """What killed runs left beside a version's folder, and its bytes.

  A run that is at work just now has such a folder too. A conversion's folder is
  none, as the next one goes on with it.
  """
  path = epath.Path(data_path)
  return [
    (folder, sum(f.stat().length for f in folder.iterdir()))
    for folder in sorted(path.parent.glob(f"incomplete.*_{path.name}"))
    if not folder.name.startswith("incomplete.convert_")
  ]
