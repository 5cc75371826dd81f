"""Where numbers go: TensorBoard, metrics.jsonl and the terminal.

Events are written by tensorboardX, since clu's writer and TensorBoard's own
need TensorFlow, of more than a gigabyte, for nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
import importlib
import json
import math
import pathlib
import shlex
import sys
import tempfile
import time
from typing import Any

from clu import parameter_overview
from etils import epath
from tensorboardX import event_file_writer

from mobilevit_jax import files
from mobilevit_jax.run.tracker import Tracker

# Made when they are imported, so type checkers can't know what is in them.
_event_pb2: Any = importlib.import_module("tensorboardX.proto.event_pb2")
_summary_pb2: Any = importlib.import_module("tensorboardX.proto.summary_pb2")

# Seconds between copies of what is written to a bucket.
_COPY_EVERY = 60.0


class _Events:
  """An event file for TensorBoard, in a folder, local or `gs://`.

  Objects of a bucket are written whole: there the file grows in a local folder,
  and is copied once in a while.
  """

  def __init__(self, folder: epath.Path):
    folder.mkdir(parents=True, exist_ok=True)
    self._remote = None if files.is_local(folder) else folder
    if self._remote is not None:
      self._scratch = tempfile.TemporaryDirectory()
    self._local = pathlib.Path(
      folder if self._remote is None else self._scratch.name
    )
    self._file = event_file_writer.EventsWriter(str(self._local / "events"))
    self._copied = time.monotonic()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    # The protocol buffers of TensorBoard's files, without TensorFlow.
    """Adds the scalars of a step."""
    values = [
      _summary_pb2.Summary.Value(tag=name, simple_value=float(value))
      for name, value in scalars.items()
    ]
    event = _event_pb2.Event(
      wall_time=time.time(),
      step=step,
      summary=_summary_pb2.Summary(value=values),
    )
    self._file.write_event(event)
    # A reader sees each line at once; a crash loses none.
    self._file.flush()
    if time.monotonic() - self._copied > _COPY_EVERY:
      self._copy()

  def _copy(self) -> None:
    # Whole files: objects in a bucket can't be appended to.
    if self._remote is not None:
      for path in self._local.iterdir():
        (self._remote / path.name).write_bytes(path.read_bytes())
      self._copied = time.monotonic()

  def close(self) -> None:
    """Completes the file."""
    self._file.close()
    self._copy()
    if self._remote is not None:
      self._scratch.cleanup()


class Writer:
  """Writes scalars as TensorBoard events and lines of `metrics.jsonl`.

  Args:
    workdir: the run's folder; events go to its `tensorboard`.
    enabled: False on all processes but the first: nothing is written.
    say: takes a line on a file of the run that is damaged.
    open_tracker: of `tracker.opener`: what gets the scalars too.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    enabled: bool = True,
    say: Callable[[str], None] = print,
    open_tracker: Callable[[float], Tracker] | None = None,
  ):
    self._enabled, self._say = enabled, say
    self._open_tracker = open_tracker
    self._tracker: Tracker | None = None
    if not enabled:
      return
    self._jsonl = epath.Path(workdir) / "metrics.jsonl"
    events = epath.Path(workdir) / "tensorboard"
    self._events: _Events | None = None
    if events.exists() and not events.is_dir():
      say(f"warning: {events} is no folder: nothing is written for TensorBoard")
    else:
      self._events = _Events(events)

  def rewind(self, step: int) -> None:
    """Forgets what was written after step `step`, before it is redone.

    A killed run wrote more than its last checkpoint knows; an evaluation at
    `step` itself follows the checkpoint, and is redone too.
    """
    if not self._enabled or not self._jsonl.exists():
      return
    # --- Lines are kept up to the checkpoint, in the order they were written.
    lines = files.read_lines(self._jsonl)
    steps = [_step(line) for line in lines]
    # The last line may be half of one: the process was killed.
    self._note_damage(self._jsonl, sum(found is None for found in steps[:-1]))
    kept = [
      line
      for line, found in zip(lines, steps, strict=True)
      # (step, False) is a line of training, (step, True) of an evaluation at
      # it.
      if found is not None and found < (step, True)
    ]
    files.write_text(self._jsonl, "".join(f"{line}\n" for line in kept))

  def note_start(self, step: int) -> float:
    """Adds a start at `step` to `starts.jsonl`; returns the first one's time.

    Times are in seconds since 1970; the command is as this process was started.
    """
    # --- Every start is a line: the first one's time is the run's begin.
    now = time.time()
    if not self._enabled:
      return now
    path = self._jsonl.with_name("starts.jsonl")
    found = [(line, _time(line)) for line in files.read_lines(path)]
    starts = [(line, time) for line, time in found if time is not None]
    self._note_damage(path, len(found) - len(starts))
    command = shlex.join(sys.orig_argv)
    record = {"time": now, "step": step, "command": command}
    starts.append((json.dumps(record), now))
    files.write_text(path, "".join(f"{line}\n" for line, _ in starts))
    if self._open_tracker is not None:
      self._tracker = self._open_tracker(starts[0][1])
    return starts[0][1]

  def _note_damage(self, path: epath.Path, count: int) -> None:
    if count:
      lines = "1 line" if count == 1 else f"{count} lines"
      self._say(f"warning: {path}: left out {lines} that can't be read")

  def write(self, step: int, kind: str, scalars: Mapping[str, Any]) -> None:
    """Records scalars.

    Args:
      step: number of updates done.
      kind: `"train"` or `"eval"`; the prefix of the names in TensorBoard.
      scalars: name to number.
    """
    if not self._enabled:
      return
    # TensorBoard gets them as they are, and draws NaN as a gap.
    # JSON has no NaN or infinity.
    values = {
      name: float(value) if math.isfinite(value) else None
      for name, value in scalars.items()
    }
    record = {"step": step, "kind": kind, **values}
    files.append_text(self._jsonl, json.dumps(record, allow_nan=False) + "\n")
    tagged = {f"{kind}/{name}": value for name, value in scalars.items()}
    for place in (self._events, self._tracker):
      if place is not None:
        place.write(step, tagged)

  def close(self) -> None:
    """Completes the event file."""
    if self._enabled:
      for place in (self._events, self._tracker):
        if place is not None:
          place.close()


def _step(line: str) -> tuple[int, bool] | None:
  """Of a line of `metrics.jsonl` its step, and whether of an evaluation."""
  try:
    record = json.loads(line)
    return int(record["step"]), record["kind"] == "eval"
  except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
    return None


def _time(line: str) -> float | None:
  """Of a line of `starts.jsonl`, in seconds since 1970."""
  try:
    time = float(json.loads(line)["time"])
  except (ValueError, KeyError, TypeError, RecursionError):
    return None
  return time if math.isfinite(time) else None


def duration(seconds: float) -> str:
  # From seconds to h:mm:ss, without the hours where there are none.
  """`75` as `1:15`, `3700` as `1:01:40`."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"


def progress_line(
  step: int, num_steps: int, values: Mapping[str, float], left: float
) -> str:
  """Where a run is, how it does, how fast, and the time left."""
  return (
    f"step {step}/{num_steps} epoch {values['epoch']} "
    f"{values['image_size']} px loss {values['loss']:.4f} "
    f"lr {values['learning_rate']:.2e} "
    f"{values['images_per_second']:.0f} images/s "
    f"data wait {values['data_wait_seconds']:.1f} s ETA {duration(left)}"
  )


def listed(metrics: Mapping[str, float]) -> str:
  """`name=value` of each metric; counts as whole numbers."""
  return " ".join(
    f"{name}={value:.0f}" if "images" in name else f"{name}={value:.4f}"
    for name, value in metrics.items()
  )


def parameter_table(
  params: Mapping[str, Any], layers: Sequence[str]
) -> list[str]:
  """A line of parameter counts for each module and block, and their total.

  Args:
    params: of a net.
    layers: the paths of its parts, from the image to the outputs.
  """
  rows = []
  for path in layers:
    owner, name = path.split("/")
    rows += [
      (part, parameter_overview.count_parameters(subtree))
      for part, subtree in _blocks(name, params[owner][name])
    ]
  rows.append(("total", sum(count for _, count in rows)))
  return [f"  {part:<12}{count:>12,} parameters" for part, count in rows]


def _blocks(name: str, subtree: dict[Any, Any]) -> list[tuple[str, Any]]:
  """A module, or each block of a stage."""
  if 0 not in subtree:
    return [(name, subtree)]
  return [(f"{name}.{index}", block) for index, block in subtree.items()]
