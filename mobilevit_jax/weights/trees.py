"""A model's tensors as one flat dict, by path."""

from typing import Any

from flax import nnx


def split(model: nnx.Module) -> tuple[dict[Any, Any], dict[Any, Any]]:
  """Parameters and BatchNorm statistics, as nested dicts."""
  _, params, stats, _ = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
  return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def flatten(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
  """Leaves by their keys, joined by slashes."""
  flat: dict[str, Any] = {}
  # Keys may be strings, or the numbers of `nnx.List`.
  for key, value in tree.items():
    path = f"{prefix}{key}"
    if isinstance(value, dict):
      flat |= flatten(value, f"{path}/")
    else:
      flat[path] = value
  return flat


def replace(
  tree: dict[Any, Any], values: dict[str, Any], prefix: str = ""
) -> dict[Any, Any]:
  """The same tree with each leaf that `values` has taken from there."""
  return {
    key: replace(leaf, values, f"{prefix}{key}/")
    if isinstance(leaf, dict)
    else values.get(f"{prefix}{key}", leaf)
    for key, leaf in tree.items()
  }


def flat_model(model: nnx.Module) -> dict[str, Any]:
  """Every parameter and statistic of a model, by path."""
  params, stats = split(model)
  return flatten(params) | flatten(stats)
