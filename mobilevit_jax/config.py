"""What training and evaluation share about a run's configuration."""

from collections.abc import Iterator
import contextlib
import json
from typing import Any

from etils import epath

from mobilevit_jax import files

# An `ml_collections.ConfigDict`; type checkers can't know its fields.
Config = Any

CONFIG_FILE = "config.json"
LABELS_FILE = "labels.json"


class ConfigError(ValueError):
  """A configuration that can't be run; the message says why, in one line."""


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
  """Turns a complaint about a value into one about `config.<name>`."""
  try:
    yield
  except ConfigError:
    raise
  except (ValueError, TypeError, OSError) as error:
    raise ConfigError(f"config.{name}: {error}") from error


def check_positive(config: Config, *names: str) -> None:
  """Raises `ConfigError` unless these dotted fields are integers from 1."""
  for name in names:
    value: Any = config
    for part in name.split("."):
      value = value[part]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise ConfigError(f"config.{name}={value!r} must be an integer from 1")


def check_model_unchanged(config: Config, workdir: epath.PathLike) -> list[str]:
  """Refuses another model than the one that a run's checkpoints hold.

  Args:
    config: of the run to start.
    workdir: its folder, which may hold the configuration of an earlier start.

  Returns:
    A line for each field outside `config.model` that differs.

  Raises:
    ConfigError: naming the fields of `config.model` that differ.
  """
  path = epath.Path(workdir) / CONFIG_FILE
  if not path.exists():
    return []
  old, new = flat(json.loads(path.read_text())), flat(_plain(config))
  lines = [
    f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
    for name in sorted(old.keys() | new.keys())
    if old.get(name, "absent") != new.get(name, "absent")
  ]
  model = [line for line in lines if line.startswith("model.")]
  if model:
    raise ConfigError(
      f"config.model differs from that of the run in {workdir}: "
      + "; ".join(model)
      + ". Use another --workdir, or the model it was started with"
    )
  return lines


def save(
  config: Config,
  class_names: tuple[str, ...],
  workdir: epath.PathLike,
) -> None:
  """Writes the configuration and the class names, each whole or not at all."""
  contents = {CONFIG_FILE: _plain(config), LABELS_FILE: list(class_names)}
  for name, content in contents.items():
    text = json.dumps(content, indent=2) + "\n"
    files.write_text(epath.Path(workdir) / name, text)


def _plain(config: Config) -> dict[str, Any]:
  # Through JSON, so that tuples compare equal to what a file gives back.
  return json.loads(json.dumps(config.to_dict()))


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Fields by their dotted names."""
  result: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      result |= flat(value, f"{prefix}{name}.")
    else:
      result[prefix + name] = value
  return result
