"""What a run left about itself: its curves, its starts, its configuration."""

from collections.abc import Iterator
import dataclasses
import json
import math
from typing import Any

from etils import epath

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class History:
  """A run so far.

  Attributes:
    train: lines of `metrics.jsonl` on training, by step.
    evals: its lines on evaluation, by step.
    starts: lines of `starts.jsonl`: time in seconds since 1970, step, command.
    config: the configuration.
  """

  train: list[Record]
  evals: list[Record]
  starts: list[Record]
  config: dict[str, Any]

  def curve(self, kind: str, name: str) -> list[tuple[float, float]]:
    """(step, value) wherever a value was recorded; `kind`: train, evals."""
    return [
      (float(record["step"]), float(record[name]))
      for record in getattr(self, kind)
      if _is_number(record.get(name))
    ]

  def evaluation(self, step: int | None) -> Record:
    """What was recorded of the evaluation after a step, or nothing."""
    found = [record for record in self.evals if record["step"] == step]
    return found[-1] if found else {}

  def field(self, name: str, default: Any = None) -> Any:
    """A field of the configuration, which an older version may have lacked."""
    value: Any = self.config
    for part in name.split("."):
      value = value.get(part) if isinstance(value, dict) else None
    return default if value is None else value


def read(workdir: epath.PathLike) -> History:
  """Reads what is there.

  Raises:
    ValueError: if there is no `config.json`, or it can't be read.
  """
  folder = epath.Path(workdir)
  path = folder / "config.json"
  if not path.exists():
    raise ValueError(f"{workdir} must be a run's folder; it has no config.json")
  try:
    config = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path} is no JSON: {error}") from error
  if not isinstance(config, dict):
    raise ValueError(f"{path} must hold an object")
  metrics = [*_lines(folder / "metrics.jsonl", "step")]
  return History(
    [record for record in metrics if record.get("kind") == "train"],
    [record for record in metrics if record.get("kind") == "eval"],
    [*_lines(folder / "starts.jsonl", "time")],
    config,
  )


def _lines(path: epath.Path, number: str) -> Iterator[Record]:
  """The file's whole lines; a run that was killed may leave half of one."""
  if not path.exists():
    return
  for line in path.read_text().splitlines():
    try:
      record = json.loads(line)
    except ValueError:
      continue
    if isinstance(record, dict) and _is_number(record.get(number)):
      yield record


def _is_number(value: object) -> bool:
  return isinstance(value, int | float) and math.isfinite(value)
