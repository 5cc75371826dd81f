"""The reference of configuration fields, from the configurations themselves."""

from collections.abc import Iterator
import importlib
import pathlib
from typing import Any

from configs import fields
from configs import imagenet
from docs.generate import docstring

# Configurations to compare with imagenet.py's, with what they are asked for.
CHANGES = {
  "digits": ("",),
  "finetune": ("xxs", "xxs,scratch"),
  "segment": ("xxs", "xxs,ade20k", "xxs,folder"),
}


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
  for name, own in fields.OWN_FIELDS.items():
    module = importlib.import_module(f"configs.{name}")
    new = set(flat(module.get_config())) - there
    if new != set(own):
      wrong = sorted(new ^ set(own))
      raise ValueError(f"configs/fields.py and {name}.py differ in {wrong}")
  files = {
    path.stem for path in pathlib.Path(fields.__file__).parent.glob("*.py")
  }
  if files - {"fields", "imagenet"} != CHANGES.keys():
    raise ValueError(f"CHANGES must have the configurations of {sorted(files)}")


def reference() -> str:
  """A table for each section: field, type, default, unit, meaning."""
  check()
  found = flat(imagenet.get_config())
  sections: dict[str, list[str]] = {}
  for name, (unit, meaning) in fields.FIELDS.items():  # in order of reading
    kind, default = found[name]
    section = name.partition(".")[0] if "." in name else "The run"
    cells = (f"`{name}`", kind, f"`{_show(default)}`", unit, meaning)
    sections.setdefault(section, []).append(_row(cells))
  lines = ['<div class="fields" markdown>', ""]
  for section, rows in sections.items():
    lines += [f"### {section}", ""]
    lines += [*_head("field", "type", "default", "unit", "meaning"), *rows, ""]
  return "\n".join([*lines, "</div>"])


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
  own = fields.OWN_FIELDS.get(name, {})
  for field in (*fields.FIELDS, *own):
    values = [
      f"`{_show(config[field][1])}`" if field in config else "-"
      for config in (base, *found.values())
    ]
    if len(set(values)) > 1:
      lines.append(_row((f"`{field}`", *values)))
  if own:
    lines += ["", *_head("field", "unit", "meaning")]
    lines += [_row((f"`{field}`", *texts)) for field, texts in own.items()]
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
