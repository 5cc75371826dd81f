"""Checkpoints of a run; the only file that says Orbax.

`workdir/checkpoints` holds the last few steps and `workdir/best` the one that
evaluated best. Orbax writes into a temporary folder and renames it, so that
a process killed while saving leaves the checkpoint before it intact.
"""

from typing import Any

from etils import epath
import orbax.checkpoint as ocp

_BEST_METRIC = "ema_top1"


def exists(workdir: epath.PathLike) -> bool:
  """Whether the folder holds a run's checkpoints, maybe none complete."""
  return (epath.Path(workdir) / "checkpoints").exists()


class Checkpoints:
  """Asynchronous saving and exact restoring of a training run.

  Args:
    workdir: the run's folder, local or `gs://`.
    keep: how many of the last checkpoints to keep.
    create: make the folders; without it a missing run is an error.
  """

  def __init__(
    self, workdir: epath.PathLike, *, keep: int = 1, create: bool = True
  ):
    if keep < 1:
      raise ValueError(f"keep={keep} must be at least 1")
    root = epath.Path(workdir).resolve()
    if not create and not exists(root):
      raise FileNotFoundError(
        f"{workdir} holds no checkpoints; train there first, or correct "
        "--workdir"
      )
    self._latest = ocp.CheckpointManager(
      root / "checkpoints",
      options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=create),
    )
    self._best = ocp.CheckpointManager(
      root / "best",
      options=ocp.CheckpointManagerOptions(
        max_to_keep=1,
        best_fn=lambda metrics: metrics[_BEST_METRIC],
        create=True,
      ),
    )

  def latest_step(self) -> int | None:
    """The newest complete checkpoint's step, or None."""
    return self._latest.latest_step()

  def best_step(self) -> int | None:
    """The best checkpoint's step, or None where none was evaluated."""
    return self._best.best_step()

  def best_top1(self) -> float:
    """EMA top-1 of the best checkpoint, -1 where there is none."""
    step = self.best_step()
    if step is None:
      return -1.0
    metrics = self._best.metrics(step) or {}
    return float(metrics[_BEST_METRIC])

  def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
    """Starts to save; returns when the device's memory may be reused.

    Args:
      step: number of updates done.
      state: the train state.
      progress: what the host carries besides, as JSON.
    """
    self._latest.save(step, args=_save_args(state, progress))

  def save_best(
    self, step: int, state: Any, progress: dict[str, Any], top1: float
  ) -> None:
    """Replaces the best checkpoint."""
    self._best.save(
      step,
      args=_save_args(state, progress),
      metrics={_BEST_METRIC: top1},
    )

  def restore(
    self, shapes: Any, *, best: bool = False
  ) -> tuple[Any, dict[str, Any]]:
    """State and progress of the newest (or best) checkpoint.

    Args:
      shapes: the state's `ShapeDtypeStruct`s, with the shardings to place
        the values with.
      best: the best evaluated checkpoint in place of the newest.
    """
    manager = self._best if best else self._latest
    step = manager.best_step() if best else manager.latest_step()
    if step is None:
      raise FileNotFoundError(
        f"{manager.directory} holds no complete checkpoint"
      )
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(shapes),
        progress=ocp.args.JsonRestore(),
      ),
    )
    return restored["state"], restored["progress"]

  def restore_weights(
    self, params: Any, batch_stats: Any, *, which: str = "ema"
  ) -> tuple[Any, Any]:
    """Parameters and BatchNorm statistics alone, without the optimiser's.

    Args:
      params: their `ShapeDtypeStruct`s, with shardings.
      batch_stats: likewise.
      which: `"ema"` for the averages, `"raw"` for the trained weights.
    """
    prefixes = {"ema": "ema_", "raw": ""}
    if which not in prefixes:
      raise ValueError(f"which={which!r} must be 'ema' or 'raw'")
    step = self.latest_step()
    if step is None:
      raise FileNotFoundError(
        f"{self._latest.directory} holds no complete checkpoint"
      )
    names = [prefixes[which] + name for name in ("params", "batch_stats")]
    item = dict(zip(names, (params, batch_stats), strict=True))
    args = ocp.args.PyTreeRestore(
      item=item,
      restore_args=ocp.checkpoint_utils.construct_restore_args(item),
      partial_restore=True,
    )
    restored = self._latest.restore(step, args=ocp.args.Composite(state=args))
    return tuple(restored["state"][name] for name in names)

  def reached_preemption(self, step: int) -> bool:
    """Whether the processes agreed to stop after step `step`."""
    return self._latest.reached_preemption(step)

  def wait(self) -> None:
    """Blocks until what was saved is complete on disk."""
    self._latest.wait_until_finished()
    self._best.wait_until_finished()

  def close(self) -> None:
    """Finishes saving and stops the background threads."""
    self._latest.close()
    self._best.close()


def _save_args(state: Any, progress: dict[str, Any]) -> ocp.args.Composite:
  return ocp.args.Composite(
    state=ocp.args.StandardSave(state),
    progress=ocp.args.JsonSave(progress),
  )
