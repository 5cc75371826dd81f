"""The reference of configuration fields, from the configurations themselves."""

from collections.abc import Iterator
import importlib
import pathlib
from typing import Any

from configs import fields
from configs import imagenet
from docs.generate import docstring
from mobilevit_jax import ranges

# Configurations to compare with imagenet.py's, with what they are asked for.
CHANGES = {
  "detect": ("xxs,coco", "xxs,folder", "xxs,folder,scratch"),
  "digits": ("",),
  "finetune": ("xxs", "xxs,scratch"),
  "segment": ("xxs", "xxs,ade20k", "xxs,folder", "xxs,folder,scratch"),
}
# Configurations of other tasks: what their task and their transform take.
OTHERS = {"detect": fields.DETECT, "segment": fields.SEGMENT}


def flat(config: Any) -> dict[str, tuple[str, Any]]:
  """Type and default of each field, by its dotted name."""
  return dict(_walk(config, ""))


def _walk(config: Any, prefix: str) -> Iterator[tuple[str, tuple[str, Any]]]:
  for name in config:
    value = config[name]
    if hasattr(value, "to_dict"):
      yield from _walk(value, f"{prefix}{name}.")
    elif value is None:
      yield f"{prefix}{name}", (config.get_type(name).__name__, None)
    else:
      yield f"{prefix}{name}", (_type_name(value), value)


def _type_name(value: Any) -> str:
  if isinstance(value, tuple):
    kinds = sorted({type(item).__name__ for item in value})
    return f"tuple of {', '.join(kinds)}"
  return type(value).__name__


def check() -> None:
  """`ValueError` unless fields.py describes exactly the fields there are."""
  there, described = set(flat(imagenet.get_config())), set(fields.FIELDS)
  if missing := sorted(there - described):
    raise ValueError(f"configs/fields.py does not describe {missing}")
  if extra := sorted(described - there):
    raise ValueError(f"configs/fields.py describes {extra}, which is no field")
  for name, own in OTHERS.items():
    config = importlib.import_module(f"configs.{name}").get_config("xxs")
    own_sections = ("task.", "transform.")
    known = {f for f in described if not f.startswith(own_sections)}
    if wrong := sorted((flat(config).keys() - known) ^ own.keys()):
      raise ValueError(f"configs/fields.py and {name}.py differ in {wrong}")
  files = {
    path.stem for path in pathlib.Path(fields.__file__).parent.glob("*.py")
  }
  if files - {"__init__", "fields", "imagenet"} != CHANGES.keys():
    raise ValueError(f"CHANGES must have the configurations of {sorted(files)}")


def reference() -> str:
  """A table for each section: what a field is, means, and may be."""
  check()
  found = flat(imagenet.get_config())
  sections: dict[str, list[str]] = {}
  for name, (unit, meaning) in fields.FIELDS.items():  # in order of reading
    kind, default = found[name]
    section = name.partition(".")[0] if "." in name else "The run"
    allowed = str(ranges.RULES[name])
    cells = (f"`{name}`", kind, f"`{_show(default)}`", unit, meaning, allowed)
    sections.setdefault(section, []).append(_row(cells))
  lines = ['<div class="fields" markdown>', ""]
  for section, rows in sections.items():
    lines += [f"### {section}", ""]
    titles = ("field", "type", "default", "unit", "meaning", "allowed")
    lines += [*_head(*titles), *rows, ""]
  return "\n".join([*lines, "</div>"])


def own_fields(name: str) -> str:
  """A table of the fields that configs/NAME.py has in place of others."""
  config = importlib.import_module(f"configs.{name}").get_config("xxs")
  found = flat(config)
  lines = _head("field", "type", "default", "unit", "meaning")
  for field, (unit, meaning) in OTHERS[name].items():
    kind, default = found[field]
    lines.append(
      _row((f"`{field}`", kind, f"`{_show(default)}`", unit, meaning))
    )
  return "\n".join(lines)


def changes(name: str) -> str:
  """What configs/NAME.py sets otherwise than imagenet.py does."""
  module = importlib.import_module(f"configs.{name}")
  columns = {
    f"{name}.py" + (f":{argument}" if argument else ""): module.get_config(
      *([argument] if argument else [])
    )
    for argument in CHANGES[name]
  }
  variant = next(iter(columns.values())).model.name.removeprefix("mobilevit_")
  base = flat(imagenet.get_config(variant))
  found = {title: flat(config) for title, config in columns.items()}
  lines = [docstring.markdown(module), ""]
  lines += _head("field", f"imagenet.py:{variant}", *found)
  for field in fields.FIELDS:
    if not all(field in config for config in found.values()):
      continue  # of another task
    values = [config[field][1] for config in (base, *found.values())]
    if len(set(values)) > 1:
      shown = [f"`{_show(value)}`" for value in values]
      lines.append(_row((f"`{field}`", *shown)))
  return "\n".join(lines)


def _show(value: Any) -> str:
  if isinstance(value, tuple):
    return f"({', '.join(map(_show, value))}{',' * (len(value) == 1)})"
  text = repr(value)
  return f"{value:.4g}" if isinstance(value, float) and len(text) > 7 else text


def _row(cells: tuple[str, ...]) -> str:
  return f"| {' | '.join(cells)} |"


def _head(*titles: str) -> list[str]:
  return [_row(titles), _row(("---",) * len(titles))]
