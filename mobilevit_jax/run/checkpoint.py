"""Checkpoints of a run; the only file that says Orbax.

`workdir/checkpoints` holds the last few steps and `workdir/best` the one that
evaluated best. Orbax writes into a temporary folder and renames it, so that
a process killed while saving leaves the checkpoint before it intact; so does a
power cut, since the files are on the disk before the folder is renamed. What a
disk did to a file later shows in the checksums, which are saved beside.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import json
import logging
import math
import pathlib
import sys
from typing import Any, TypeVar
import zlib

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from mobilevit_jax import config
from mobilevit_jax import files
from mobilevit_jax.run.progress import rank

_T = TypeVar("_T")


class CheckpointError(config.UserError, RuntimeError):
  """A checkpoint can't be written, or none can be read."""


def _is_not_orbax(record: logging.LogRecord) -> bool:
  """Its threads log each error with a traceback, and we raise the error."""
  return "orbax" not in pathlib.PurePath(record.pathname).parts


def exists(workdir: epath.PathLike) -> bool:
  """Whether the folder holds a run's checkpoints, maybe none complete."""
  return (epath.Path(workdir) / "checkpoints").exists()


class Checkpoints:
  """Asynchronous saving and exact restoring of a training run.

  Args:
    workdir: the run's folder, local or `gs://`.
    keep: how many of the last checkpoints to keep.
    create: make the folders; without it a missing run is an error.
    say: takes a line on a checkpoint that can't be read; by default they go
      to standard error.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    keep: int = 1,
    create: bool = True,
    say: Callable[[str], None] | None = None,
  ):
    if keep < 1:
      raise ValueError(f"keep={keep} must be at least 1")
    root = epath.Path(workdir).resolve()
    if not create and not exists(root):
      raise FileNotFoundError(
        f"{workdir} holds no checkpoints; train there first, or correct "
        "--workdir"
      )
    # Its errors reach the user as one line, so the tracebacks are noise.
    logging.getLogger("absl").addFilter(_is_not_orbax)
    self._say = say or functools.partial(print, file=sys.stderr)
    # --- The last few checkpoints, which a run continues from.
    self._latest = ocp.CheckpointManager(
      root / "checkpoints",
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=create,
        cleanup_tmp_directories=create,
        multiprocessing_options=_barriers("checkpoints"),
        async_options=_synced(root / "checkpoints"),
      ),
    )
    try:
      # --- The best one, by the metric that the task names.
      self._best = ocp.CheckpointManager(
        root / "best",
        options=ocp.CheckpointManagerOptions(
          max_to_keep=1,
          best_fn=_rank,
          # Orbax needs the folder to exist, even to read: an older run may have
          # none.
          create=True,
          cleanup_tmp_directories=create,
          multiprocessing_options=_barriers("best"),
          async_options=_synced(root / "best"),
        ),
      )
    except ValueError as error:  # it reads the metrics
      raise CheckpointError(
        f"{root / 'best'} can't be read: {_first_line(error)}. Move it away: "
        "the next good evaluation writes another"
      ) from error

  def latest_step(self) -> int | None:
    """The newest complete checkpoint's step, or None."""
    return self._latest.latest_step()

  def best(self) -> tuple[float, float, int]:
    """The best checkpoint's `progress.rank`, the lowest where there is none."""
    self._settle(self._best)  # its metrics are written last
    step = self._best.best_step()
    metrics = {} if step is None else self._best.metrics(step) or {}
    return _rank(metrics)

  def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
    """Starts to save; returns when the device's memory may be reused.

    Args:
      step: number of updates done.
      state: the train state, a dataclass of trees on all devices.
      progress: what the host carries besides, as JSON.

    Raises:
      CheckpointError: if this one or the one before can't be written.
    """
    # One save at a time: memory for the copy of one state is what there is.
    self._settle(self._latest)  # Orbax too waits for the one before
    with self._saving(self._latest):
      self._latest.save(step, args=_save_args(state, progress))

  def save_best(
    self, step: int, state: Any, name: str, value: float, loss: float = 0.0
  ) -> None:
    """Replaces the best checkpoint by one whose metric `name` is `value`.

    Args:
      step: number of updates done.
      state: the train state.
      name: of the metric, of which more is better.
      value: of the metric.
      loss: of the evaluation; it decides between equals.

    Raises:
      CheckpointError: as `save` does.
    """
    self._settle(self._best)
    with self._saving(self._best):
      metrics = {name: value, "loss": loss, "step": step}
      self._best.save(step, args=_save_args(state, {}), metrics=metrics)

  def _settle(self, manager: ocp.CheckpointManager) -> None:
    # "Finished" isn't "on the disk": that takes an fsync of folder and files.
    """Returns when what is being saved is whole, and on the disk by its name.

    Orbax notes in a small file when it has renamed a folder: that is synced
    here, the rest before the renaming.
    """
    with self._saving(manager):
      manager.wait_until_finished()
      step = manager.latest_step()
      if step is not None:
        files.sync(manager.directory / str(step))
        files.sync(manager.directory, deep=False)

  @contextlib.contextmanager
  # Every kind of failure to save ends in one message that says what is safe.
  def _saving(self, manager: ocp.CheckpointManager) -> Iterator[None]:
    try:
      yield
    except jax.errors.JaxRuntimeError:
      raise  # another process is lost; a RuntimeError too
    except (OSError, RuntimeError, ValueError) as error:
      raise CheckpointError(
        f"can't save to {manager.directory}: {_first_line(error)}. What was "
        "saved before is intact: make room if there is none, then run the same "
        "command again to continue"
      ) from error

  def restore(self, shapes: Any) -> tuple[int, Any, dict[str, Any]]:
    """The newest checkpoint that is whole; newer ones are moved to `broken`.

    Args:
      shapes: the state's `ShapeDtypeStruct`s, with the shardings to place
        the values with.

    Returns:
      Its step, the state and the progress.

    Raises:
      CheckpointError: if there is none, or not of this state.
    """

    def read(step: int) -> tuple[Any, dict[str, Any]]:
      restored = self._latest.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(shapes),
          progress=ocp.args.JsonRestore(),
        ),
      )
      state, progress = restored["state"], restored["progress"]["progress"]
      # Checksums of what was read: Orbax notices a missing file, not a changed
      # one.
      sums = restored["progress"]["checksums"]
      _check(sums, _parts(_fields(state)) | {"progress": progress})
      return state, progress

    step, (state, progress), broken = self._newest(self._latest, read)
    self._move_away(broken)
    return step, state, progress

  def restore_weights(
    self, params: Any, batch_stats: Any, *, which: str = "ema"
  ) -> tuple[int, Any, Any]:
    """The net's parameters and BatchNorm statistics, and nothing else.

    Args:
      params: their `ShapeDtypeStruct`s, with shardings.
      batch_stats: likewise.
      which: `"ema"` for the averages, `"raw"` for the trained weights, both of
        the newest checkpoint that is whole; `"best"` for the averages of the
        one that evaluated best.

    Returns:
      The checkpoint's step, and the two trees.

    Raises:
      CheckpointError: if there is none, or not of these shapes.
    """
    prefixes = {"ema": "ema_", "raw": "", "best": "ema_"}
    if which not in prefixes:
      raise ValueError(f"which={which!r} must be one of {', '.join(prefixes)}")
    manager = self._best if which == "best" else self._latest
    names = [prefixes[which] + name for name in ("params", "batch_stats")]
    # A task's own parameters stay where they are.
    item = {names[0]: {"net": params}, names[1]: batch_stats}

    def read(step: int) -> dict[str, Any]:
      restored = manager.restore(
        step,
        # PyTreeRestore reads these parts alone: optimiser state is most of a
        # file.
        args=ocp.args.Composite(
          state=ocp.args.PyTreeRestore(
            item=item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
          ),
          progress=ocp.args.JsonRestore(),
        ),
      )
      _check(restored["progress"]["checksums"], _parts(restored["state"]))
      return restored["state"]

    step, state, _ = self._newest(manager, read)
    return step, state[names[0]]["net"], state[names[1]]

  def _newest(
    self, manager: ocp.CheckpointManager, read: Callable[[int], _T]
  ) -> tuple[int, _T, list[int]]:
    """What `read` gives for the newest step it can, and the steps it can't."""
    broken: list[int] = []
    first: Exception | None = None
    # --- From the newest on, the first one that can be read.
    for step in sorted(manager.all_steps(), reverse=True):
      try:
        result = read(step)
      except Exception as error:  # whatever a file gives that isn't as it was
        self._say(
          f"warning: checkpoint {step} in {manager.directory} can't be read: "
          f"{_first_line(error)}"
        )
        first = first or error
        broken.append(step)
        continue
      if broken:
        self._say(f"warning: using the checkpoint before, of step {step}")
      return step, result, broken
    if first is None:
      raise CheckpointError(f"{manager.directory} holds no complete checkpoint")
    raise CheckpointError(
      f"no checkpoint in {manager.directory} can be read: they are "
      "broken, or of another configuration. Use the configuration they were "
      f"made with, or another --workdir. The newest: {_first_line(first)}"
    ) from first

  def _move_away(self, steps: list[int]) -> None:
    """Out of the way of the same steps, which will be saved again."""
    if not steps:
      return
    folder = self._latest.directory
    if jax.process_index() == 0:
      (folder.parent / "broken").mkdir(exist_ok=True)
      for step in steps:
        # One process renames; the others wait, and then read the folder again.
        target = folder.parent / "broken" / str(step)
        if target.exists():
          target.rmtree()
        (folder / str(step)).rename(target)
    multihost_utils.sync_global_devices("broken checkpoints are moved")
    self._latest.reload()

  def reached_preemption(self, step: int) -> bool:
    """Whether the processes agreed to stop after step `step`."""
    return self._latest.reached_preemption(step)

  def wait(self) -> None:
    """Blocks until the last states are on disk; raises as `save`."""
    for manager in (self._latest, self._best):
      self._settle(manager)

  def close(self) -> None:
    """Finishes saving and stops the background threads; raises as `save`."""
    self.wait()
    for manager in (self._latest, self._best):
      with self._saving(manager):
        manager.close()


def _rank(metrics: Mapping[str, Any]) -> Any:
  """Of the best checkpoint's metrics, which an older one may have fewer of."""
  # Older runs' metrics have neither loss nor step.
  others = dict(metrics)
  loss, step = others.pop("loss", 0.0), others.pop("step", -1)
  # The one left, whatever the task calls it.
  value = next(iter(others.values()), -math.inf)
  return rank(float(value), float(loss), int(step))


def _barriers(name: str) -> ocp.options.MultiprocessingOptions:
  """Processes meet by name, and both managers may be saving at a time."""
  return ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=name)


def _synced(folder: epath.Path) -> ocp.AsyncOptions:
  """What is being saved is on the disk before it gets its name.

  Only after that does Orbax delete an older one. It calls this when all files
  of a checkpoint are written, in a thread of its own.
  """

  def sync() -> None:
    for path in folder.iterdir():
      if not path.name.isdigit():  # a whole one was seen to before
        files.sync(path)

  return ocp.AsyncOptions(post_finalization_callback=sync)


def _save_args(state: Any, progress: dict[str, Any]) -> ocp.args.Composite:
  parts = _parts(_fields(state)) | {"progress": progress}
  # On the host, before Orbax's threads start: the arrays may change later.
  sums = {name: _crc32(tree) for name, tree in parts.items()}
  return ocp.args.Composite(
    state=ocp.args.StandardSave(state),
    progress=ocp.args.JsonSave({"progress": progress, "checksums": sums}),
  )


def _fields(state: Any) -> dict[str, Any]:
  names = [field.name for field in dataclasses.fields(state)]
  return {name: getattr(state, name) for name in names}


def _parts(fields: Mapping[str, Any]) -> dict[str, Any]:
  """What a state's checksums are of: whatever can be read by itself."""
  parts = {}
  for name, tree in fields.items():
    if name.endswith("params"):  # of the net, and of the task
      # So that weights can be checked without the optimiser's state.
      parts |= {f"{name}.{part}": value for part, value in tree.items()}
    else:
      parts[name] = tree
  return parts


def _check(sums: Mapping[str, int], parts: Mapping[str, Any]) -> None:
  """Raises `ValueError` naming a part that isn't the one summed up."""
  for name, tree in parts.items():
    if _crc32(tree) != sums[name]:
      raise ValueError(f"its {name} is not what was saved")


def _crc32(tree: Any) -> int:
  """Of a tree of arrays, which are on every device, or of JSON's values.

  Shapes and names don't count: who reads has to know them.
  """
  # JSON and arrays differ: a dict's order has no meaning, an array's has.
  leaves = jax.tree.leaves(tree)
  if not any(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
    return zlib.crc32(json.dumps(tree, sort_keys=True).encode())
  value = 0
  for leaf in leaves:
    array = np.ascontiguousarray(leaf)
    value = zlib.crc32(array.view(np.uint8).data, value)
  return value


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]
