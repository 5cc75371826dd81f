"""Files that are there whole, or as they were before."""

from etils import epath


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes beside the file, then gives that its name: a kill loses nothing."""
  path = epath.Path(path)
  part = path.with_name(f"{path.name}.part")
  part.write_text(text)
  part.replace(path)
