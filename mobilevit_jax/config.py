"""What training and evaluation share about a run's configuration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import sys
import types
from typing import Any
import zlib

from absl import flags
from etils import epath
from ml_collections import config_flags

from mobilevit_jax import __version__
from mobilevit_jax import files

# A `ml_collections.ConfigDict`. Not said to the type checker, which would take
# every section for what a field may be and refuse `config.optim.name`.
Config = Any
Record = dict[str, Any]  # a configuration as JSON has it

CONFIG_FILE = "config.json"
LABELS_FILE = "labels.json"

# Where a field of an older version is today, for a message about it.
# Configurations of 0.1.0 had these in other sections.
_CROPS = ("crop_scale", "crop_ratio", "flip", "color_jitter", "erase")
_RANDAUGMENT = ("randaugment_ops", "randaugment_magnitude")
MOVED = {
  "weights.head": "weights.reset",
  **{f"data.{n}": f"task.{n}" for n in ("mixup", "cutmix")},
  **{f"optim.{n}": f"task.{n}" for n in ("label_smoothing", "class_weights")},
  **{f"data.{n}": f"transform.{n}" for n in (*_CROPS, *_RANDAUGMENT)},
  **{f"eval.{n}": f"transform.{n}" for n in ("preset", "resize_size")},
}


class UserError(Exception):
  """What the user can mend; the message says how, in one line."""


class ConfigError(UserError, ValueError):
  """A configuration that can't be run."""


class ForeignFileError(UserError, ValueError):
  """A file from elsewhere that can't be used; the message names it."""


@contextlib.contextmanager
def foreign(name: object) -> Iterator[None]:
  """Turns whatever reading a file from elsewhere raises into one class.

  Readers meet what nobody thought of: their libraries raise errors of a dozen
  types. Only a missing file stays a `FileNotFoundError`.

  Args:
    name: of the file, which begins the message.

  Raises:
    ForeignFileError: in place of any other error.
  """
  try:
    yield
  except (ForeignFileError, FileNotFoundError):
    raise
  except UserError as error:  # it says whose it is
    raise ForeignFileError(str(error)) from error
  except Exception as error:
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
      reason = error.strerror
    if not reason.startswith(str(name)):
      reason = f"{name}: {reason}"
    raise ForeignFileError(reason) from error


def need(module: str, extra: str, what: str) -> None:
  """Says which extra of the package something takes, where it is not there.

  Args:
    module: that is imported.
    extra: that installs it.
    what: takes it; the beginning of the message.

  Raises:
    ConfigError: with the command that installs it.
  """
  if importlib.util.find_spec(module) is None:
    raise ConfigError(
      f"{what} needs {module}, which is not installed: "
      f"pip install 'mobilevit-jax[{extra}]'"
    )


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
  """Turns a complaint about a value into one about `config.<name>`."""
  try:
    yield
  except ConfigError:
    raise
  except (ValueError, TypeError, OSError) as error:
    raise ConfigError(f"config.{name}: {error}") from error


def shipped_configs() -> pathlib.Path:
  """The folder of configurations: in the package, or a checkout's own."""
  # A wheel has configs/ inside the package (setup.py), a checkout beside it.
  inside = pathlib.Path(__file__).with_name("configs")
  return inside if inside.is_dir() else inside.parents[1] / "configs"


def config_names() -> list[str]:
  """Names of the shipped configurations."""
  texts = {
    path.stem: path.read_text() for path in shipped_configs().glob("*.py")
  }
  return sorted(n for n, text in texts.items() if "def get_config(" in text)


def find_config(file: str) -> pathlib.Path:
  """The file of a configuration.

  Args:
    file: its path, or the name of a shipped one, such as `digits`.

  Raises:
    FileNotFoundError: naming what there is.
  """
  if file in config_names():
    return shipped_configs() / f"{file}.py"
  path = pathlib.Path(file)
  if not path.is_file():
    raise FileNotFoundError(
      f"No such file: {file!r}; the shipped configurations, which need no "
      f"path, are {', '.join(config_names())}"
    )
  return path


def load(path: pathlib.Path) -> types.ModuleType:
  """Runs a Python file as a module that may import its neighbours.

  `from . import imagenet` means the same in a checkout, in an installed package
  and in a folder of the user's: the file is loaded as a part of a package that
  is its folder.
  """
  folder = str(path.resolve().parent)
  # One for each folder: neighbours of equal names stay apart.
  # A package made by hand, whose path is the folder: then `from . import` finds
  # the file's neighbours, wherever the folder lies.
  parent = f"folder_{zlib.crc32(os.fsencode(folder)):08x}"
  if parent not in sys.modules:
    package = types.ModuleType(parent)
    package.__path__ = [folder]
    sys.modules[parent] = package
  name = f"{parent}.{path.stem}"
  loader = importlib.machinery.SourceFileLoader(name, str(path))
  spec = importlib.util.spec_from_loader(name, loader)
  if spec is None:
    raise ImportError(f"{path} can't be loaded")
  module = importlib.util.module_from_spec(spec)
  loader.exec_module(module)
  return module


class _ConfigParser(flags.ArgumentParser):
  """Turns `FILE[:ARGUMENT]` into a configuration; see `find_config`."""

  def parse(self, argument: str) -> Config:
    """What the file's `get_config` returns, locked against new fields."""
    # NAME:ARGUMENT, as ml_collections has it.
    file, *words = argument.split(":", 1)
    config = load(find_config(file)).get_config(*words)
    config.lock()
    return config

  def flag_type(self) -> str:
    """For the flag's help."""
    return "configuration"


def _accept_names(values: flags.FlagValues) -> None:
  """Lets ml_collections' flag `--config` take the names of `config_names`.

  ml_collections loads a file by its path alone, with no package around it.
  """
  values["config"].parser = _ConfigParser()


def flags_parser(
  values: flags.FlagValues, holder: flags.FlagHolder, about: str | None
) -> Callable[[list[str]], list[str]]:
  """`parse_flags` for absl; --help and what is wrong end the process.

  Args:
    values: the flags of the process.
    holder: see `parse_flags`.
    about: what the help says above the flags.
  """

  # --help without a configuration: absl's own would list every library's flags.
  def parse(argv: list[str]) -> list[str]:
    if not {"-h", "--help"}.isdisjoint(argv):
      module = values.find_module_defining_flag("workdir")
      print(about, values.module_help(module), sep="")
      sys.exit(0)
    try:
      return parse_flags(values, holder, argv)
    except ConfigError as error:
      sys.exit(f"error: {error}")

  return parse


def parse_flags(
  values: flags.FlagValues, holder: flags.FlagHolder, argv: Sequence[str]
) -> list[str]:
  """Parses a command line that names a configuration.

  Args:
    values: the flags of the process.
    holder: of the flag that names the configuration's file.
    argv: the command line.

  Returns:
    What is left of it: the command's name.

  Raises:
    ConfigError: for what can't be parsed or read, in one line.
  """
  _accept_names(values)
  # --- What would otherwise fail late, or with a traceback: files that aren't
  # there, and fields that have moved.
  for word in argv[1:]:
    name, _, value = word.lstrip("-").partition("=")
    file = value.partition(":")[0]
    if name == "config" and file:
      try:
        find_config(file)
      except FileNotFoundError as error:
        raise ConfigError(f"--config={value}: {error}") from error
    field = name.removeprefix("config.")
    if field in MOVED:
      raise ConfigError(f"config.{field} is now config.{MOVED[field]}")
  # --- The rest: ml_collections reads the file and sets the fields.
  try:
    rest = values(argv)
    _ = holder.value.model  # a file that can't be read shows here
  # A configuration's file is a program, which may fail in any way.
  except Exception as error:
    raise ConfigError(_reason(error, argv)) from error
  # --- A bucket that can't be reached should not wait for the first save.
  if "workdir" in values:
    if not values["workdir"].value:
      raise ConfigError("--workdir= must name a folder")
    try:
      files.check_reachable(values["workdir"].value)
    except OSError as error:
      raise ConfigError(f"--workdir: {error}") from error
  if len(rest) > 1:
    raise ConfigError(f"unexpected argument {rest[1]!r}")
  return rest


def _reason(error: Exception, argv: Sequence[str]) -> str:
  """A line on what is wrong with a command line or a configuration's file."""
  reason: object = error
  while isinstance(reason, Exception) and reason.args:  # one wraps another
    reason = reason.args[0]
  # The first line names the flag, the last gives the reason.
  lines = [line.strip() for line in str(reason).splitlines()] or ["unknown"]
  text = " ".join(dict.fromkeys([lines[0], lines[-1]]))
  if isinstance(error, KeyError | AttributeError):
    name = lines[0].partition(" ")[0].strip("'")
    # The word of the command line that has the unknown field in it.
    words = [w for w in argv if name in w.partition("=")[0].split(".")]
    return f"{words[0]}: there is no field {text}" if words else text
  if isinstance(error, flags.Error):
    return text
  named = [word for word in argv if word.startswith("--config=")]
  file = named[-1] if named else "--config"  # the last one counts
  why = lines[-1].rpartition("earlier failure to load: ")[2]
  kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
  return f"{file}: {kind}{why}"


def read_config(file: str, fields: Sequence[str] = ()) -> Config:
  """The configuration that a command other than `main` is given.

  Args:
    file: with its argument, such as `configs/finetune.py:xxs,scratch`.
    fields: `--config.FIELD=VALUE` each.

  Raises:
    ConfigError: for what can't be read or set.
  """
  values, argv = flags.FlagValues(), ["config", f"--config={file}", *fields]
  holder = config_flags.DEFINE_config_file(
    "config", flag_values=values, sys_argv=argv
  )
  parse_flags(values, holder, argv)
  return holder.value


def to_record(config: Config) -> Record:
  """The configuration as its run's folder remembers it, with our version."""
  # Through JSON, so that tuples compare equal to what a file gives back.
  return json.loads(json.dumps({"version": __version__, **config.to_dict()}))


def changes_since(new: Record, workdir: epath.PathLike) -> list[str]:
  """What differs from the configuration of the run in a folder.

  Args:
    new: the configuration to go on with.
    workdir: the run's folder, which may hold nothing yet.

  Returns:
    A line for each field outside `config.model` that differs, or one on a file
    that is damaged.

  Raises:
    ConfigError: if the checkpoints there are of another version of this
      package or of another model, naming both.
  """
  path = epath.Path(workdir) / CONFIG_FILE
  if not path.exists():
    return []
  try:
    old = json.loads(path.read_bytes())
    if not isinstance(old, dict):
      raise ValueError("it holds no object")
  except (OSError, ValueError, RecursionError) as error:
    # The checkpoints are what counts, and are checked by themselves.
    return [f"{path} can't be read, and is written anew: {error}"]
  check_version(old, workdir)
  old, new = flat_fields(old), flat_fields(new)
  lines = [
    f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
    for name in sorted(old.keys() | new.keys())
    if old.get(name, "absent") != new.get(name, "absent")
  ]
  model = [line for line in lines if line.startswith("model.")]
  # Another model's checkpoints can't be restored, so going on makes no sense.
  if model:
    raise ConfigError(
      f"config.model differs from that of the run in {workdir}: "
      + "; ".join(model)
      + ". Use another --workdir, or the model it was started with"
    )
  return lines


def check_version(old: Mapping[str, Any], workdir: epath.PathLike) -> None:
  """Refuses a run whose checkpoints another version of this package wrote."""
  version = old.get("version", "0.1.0")  # the first version did not say
  # A second number stands for how parameters are named in checkpoints.
  # The first two numbers: 0.2.1 reads what 0.2.0 wrote.
  if str(version).split(".")[:2] != __version__.split(".")[:2]:
    raise ConfigError(
      f"the run in {workdir} was started by mobilevit_jax {version}, whose "
      f"checkpoints version {__version__} can't read: go on with {version}, "
      "convert its weights with that version, or use another --workdir"
    )


def save_record(
  record: Record, class_names: tuple[str, ...], workdir: epath.PathLike
) -> None:
  """Writes the configuration and the class names, each whole or not at all."""
  contents = {CONFIG_FILE: record, LABELS_FILE: list(class_names)}
  for name, content in contents.items():
    text = json.dumps(content, indent=2) + "\n"
    files.write_text(epath.Path(workdir) / name, text)


def flat_fields(tree: Mapping[str, Any], prefix: str = "") -> Record:
  """Fields by their dotted names."""
  result: Record = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      result |= flat_fields(value, f"{prefix}{name}.")
    else:
      result[prefix + name] = value
  return result
