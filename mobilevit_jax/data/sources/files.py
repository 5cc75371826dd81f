"""Image files that a person names: a source without any truth."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from mobilevit_jax.data import examples

_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def find_images(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """The files, and every image in the folders, in order of their names.

  Hidden files in folders, such as those that macOS adds, are left out.

  Raises:
    ValueError: if a folder holds no image.
  """
  found: list[pathlib.Path] = []
  for path in paths:
    if not path.is_dir():
      found.append(path)
      continue
    inside = sorted(
      file
      for file in path.rglob("*")
      # Of the path below the folder: the folder's own name may begin with a
      # dot.
      if file.suffix.lower() in _EXTENSIONS
      and not any(p.startswith(".") for p in file.relative_to(path).parts)
      and file.is_file()
    )
    if not inside:
      raise ValueError(f"{path} holds no image ({', '.join(_EXTENSIONS)})")
    found += inside
  return found


class FileSource:
  """Image files, read when they are asked for."""

  def __init__(
    self, paths: Sequence[pathlib.Path], class_names: Sequence[str] = ()
  ):
    """`class_names` are those of the net that is to look at the images."""
    self.name, self.class_names = "files", tuple(class_names)
    self._paths = [*paths]

  def __len__(self) -> int:
    """Number of files."""
    return len(self._paths)

  def __getitem__(self, index: int) -> examples.Example:
    """Reads a file; one that can't be read is an image that can't be used."""
    path = self._paths[index]
    if path.exists() and not path.is_file():
      # A pipe would be waited for, and a device read without an end.
      raise examples.ImageError(f"{path}: is not a regular file")
    try:
      image = path.read_bytes()
    except OSError as error:
      raise examples.ImageError(
        f"{path}: cannot be read: {error.strerror}"
      ) from error
    return examples.Example(image, {}, index, str(path))

  def place(self, index: int) -> tuple[str, None]:
    """The file."""
    return str(self._paths[index]), None
