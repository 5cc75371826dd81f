"""A second place for a run's numbers: Weights & Biases, if one asks for it.

Its package is no requirement, and is imported where `config.tracker` names it.
`WANDB_MODE=offline` keeps all in `WORKDIR/wandb`, for `wandb sync`.
"""

from collections.abc import Callable, Mapping
import importlib
import importlib.util
from typing import Any, Protocol

from etils import epath

from mobilevit_jax import files
from mobilevit_jax.config import ConfigError
from mobilevit_jax.config import Record

TRACKERS = ("none", "wandb")


class Tracker(Protocol):
  """What the writer tells beside its own files."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds the scalars of a step, named as in TensorBoard."""

  def close(self) -> None:
    """Completes the record."""


def opener(
  name: str, workdir: epath.PathLike, record: Record
) -> Callable[[float], Tracker] | None:
  """What opens a tracker, given the time of the run's first start.

  Args:
    name: one of `TRACKERS`.
    workdir: the run's folder.
    record: the configuration, which is sent along.

  Raises:
    ConfigError: if its package is not installed.
  """
  if name == "none":
    return None
  if importlib.util.find_spec(name) is None:
    raise ConfigError(
      f"config.tracker={name!r} needs a package that is not installed: "
      f"pip install 'mobilevit-jax[{name}]'"
    )
  return lambda first: _WandB(epath.Path(workdir), record, first)


class _WandB:
  """Weights & Biases; a run that is resumed goes on as the same one there."""

  def __init__(self, folder: epath.Path, record: Record, first: float):
    wandb: Any = importlib.import_module("wandb")
    # Neither the terminal's lines nor the code or its repository are sent.
    settings = wandb.Settings(console="off", save_code=False, disable_git=True)
    try:
      self._run = wandb.init(
        project="mobilevit_jax",
        name=folder.name,
        id=f"{round(1000 * first):x}",
        resume="allow",
        dir=str(folder) if files.is_local(folder) else None,
        config=dict(record),
        settings=settings,
      )
    # No key, no network, a proxy: unrelated error types.
    except Exception as error:
      why = (str(error).strip() or type(error).__name__).splitlines()[0]
      raise ConfigError(
        f"config.tracker='wandb': {why.rstrip('.')}; WANDB_MODE=offline "
        "needs no network"
      ) from error
    # wandb's own count only rises, and a resumed run does steps once more.
    self._run.define_metric("*", step_metric="step")

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    self._run.log({"step": step, **scalars})

  def close(self) -> None:
    self._run.finish()
