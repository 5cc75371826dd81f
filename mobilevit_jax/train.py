"""Training: one loop, read from top to bottom."""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import time
from typing import Any

from etils import epath
import jax
import numpy as np

from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax import summary
from mobilevit_jax.config import changes_since
from mobilevit_jax.config import Config
from mobilevit_jax.config import ConfigError
from mobilevit_jax.config import save_record
from mobilevit_jax.data import check
from mobilevit_jax.data import pipeline
from mobilevit_jax.run import bad_images
from mobilevit_jax.run import bar
from mobilevit_jax.run import checkpoint
from mobilevit_jax.run import clock
from mobilevit_jax.run import distributed
from mobilevit_jax.run import lock
from mobilevit_jax.run import stop
from mobilevit_jax.run import tracker
from mobilevit_jax.run.progress import NonFiniteError
from mobilevit_jax.run.progress import Progress
from mobilevit_jax.run.progress import rank
from mobilevit_jax.run.writer import listed
from mobilevit_jax.run.writer import parameter_table
from mobilevit_jax.run.writer import progress_line
from mobilevit_jax.run.writer import Writer


def train_and_evaluate(
  config: Config, workdir: epath.PathLike
) -> evaluate.Metrics:
  """Trains to the end of the plan, resuming from `workdir` where it can.

  Args:
    config: see `configs/`.
    workdir: for checkpoints, metrics and the configuration; made if absent.

  Returns:
    The last evaluation.

  Raises:
    ConfigError: before anything is compiled or written.
    stop.Stopped: after a signal, once the run is saved.
    NonFiniteError: with the step and the last good checkpoint.
  """
  # --- What can be refused is refused here, before anything is written.
  run = experiment.build(config)
  evaluator = evaluate.Evaluator(run.evaluation)
  # Weights to start from are read before anything is written.
  is_new = not checkpoint.exists(workdir)
  open_tracker = tracker.opener(run.record["tracker"], workdir, run.record)
  initial, words = run.initial_model() if is_new else (None, "")
  for change in changes_since(run.record, workdir):
    bar.say(f"warning: differs from this run's last start: {change}")
  _describe(run, evaluator)
  if words:
    bar.say(f"weights: {words}")
  checked = _check_data(run) if is_new and run.checked else None

  with contextlib.ExitStack() as stack:
    # --- From here on the folder is this run's: everything is closed in turn.
    signals = stack.enter_context(
      stop.StopSignals(
        lambda name: bar.say(f"{name}: stopping after this step"),
        alone=jax.process_count() == 1,
      )
    )
    folder, is_first = epath.Path(workdir), jax.process_index() == 0
    folder.mkdir(parents=True, exist_ok=True)
    _take(folder, stack)
    checkpoints = checkpoint.Checkpoints(
      workdir, keep=run.cadence.keep, say=bar.say
    )
    stack.callback(checkpoints.close)
    # Either the first state, or that of the newest checkpoint.
    state, progress = _start(run, initial, checkpoints, workdir)

    # Only folders were made so far: what can't go on has said so before it
    # replaces what an earlier start wrote.
    if is_first:
      save_record(run.record, run.source.class_names, workdir)
      if checked is not None:
        checked.save(folder / check.FILE)
    writer = Writer(
      workdir, enabled=is_first, say=bar.say, open_tracker=open_tracker
    )
    stack.callback(writer.close)
    ledger = bad_images.Ledger(
      run.source,
      run.evaluation.transform,
      folder / "bad_images.jsonl" if is_first else None,
      distributed.gather,
      progress.bad_images,
    )
    trace = clock.Trace(workdir, **run.profile)
    stack.callback(trace.close)
    tools = _Tools(writer, checkpoints, signals, trace, ledger)
    # --- The loop, and what its errors mean to the user.
    try:
      return _loop(run, state, progress, evaluator, tools)
    except jax.errors.JaxRuntimeError as error:
      distributed.leave_if_lost(error)
      raise
    except NonFiniteError as error:
      # Wait: "last good" must be one that is on the disk.
      checkpoints.wait()
      step = checkpoints.latest_step()
      where = "none was saved" if step is None else f"step {step} in {workdir}"
      raise NonFiniteError(f"{error}; last good checkpoint: {where}") from None


@dataclasses.dataclass(frozen=True)
class _Tools:
  """What the loop writes to and listens to."""

  writer: Writer
  checkpoints: checkpoint.Checkpoints
  signals: stop.StopSignals
  trace: clock.Trace
  ledger: bad_images.Ledger


def _take(folder: epath.Path, stack: contextlib.ExitStack) -> None:
  """Keeps other runs out of the folder until the stack is closed.

  Raises:
    ConfigError: in all processes, if another run is at work there.
  """
  held = lock.Lock(folder, say=bar.say)

  def take() -> str:
    try:
      held.take()
    except ConfigError as error:
      return str(error)
    return ""

  # Process 0 takes the folder for all: others have no business with the lock.
  if refusal := distributed.from_first(take):
    raise ConfigError(refusal)
  stack.callback(held.release)


def _start(
  run: experiment.Experiment,
  initial: Any,
  checkpoints: checkpoint.Checkpoints,
  workdir: epath.PathLike,
) -> tuple[steps.TrainState, Progress]:
  """The state and the progress of the newest checkpoint, or the first ones."""
  parts = (run.task, run.recipe, run.layout)
  if checkpoints.latest_step() is None:
    if initial is None:
      initial, words = run.initial_model()
      bar.say(f"weights: {words}")
    state = experiment.initial_state(initial, *parts)
    return state, Progress()
  shapes = experiment.state_shapes(run.model, *parts)
  start, state, fields = checkpoints.restore(shapes)
  num_steps = run.plan.num_steps
  if start > num_steps:
    raise ConfigError(
      f"the newest checkpoint in {workdir} is of step {start}, past the "
      f"{num_steps} steps of this config; use another --workdir"
    )
  bar.say(f"weights: those of step {start} in {workdir}")
  bar.say(f"resuming at step {start} of {num_steps}")
  return state, Progress.from_json(fields)


def _loop(
  run: experiment.Experiment,
  state: steps.TrainState,
  progress: Progress,
  evaluator: evaluate.Evaluator,
  tools: _Tools,
) -> evaluate.Metrics:
  """Steps, until the plan ends, a signal comes or patience does."""
  plan, cadence, num_steps = run.plan, run.cadence, run.plan.num_steps
  writer, checkpoints, ledger = tools.writer, tools.checkpoints, tools.ledger
  start, window, best = progress.step, progress.window, progress.best

  # --- Setup: forget what will be redone, compile all that the plan needs ---

  writer.rewind(start)
  began = writer.note_start(start)
  frozen = run.layout.replicate(run.task.frozen)
  compiled = {}
  # After a signal there is nothing to save yet.
  go_on = functools.partial(tools.signals.before_step, start, num_steps)
  if start < num_steps:
    compiled = distributed.together(
      lambda: _compile_steps(run, state, frozen, go_on)
    )
  begin = time.monotonic()
  bar.say("compiling the evaluation")
  evaluator.compile()
  bar.say(f"compiled the evaluation in {time.monotonic() - begin:.1f} s")
  go_on()

  # Used after a checkpoint, and once before the loop.
  def evaluate_now(step: int) -> evaluate.Metrics:
    metrics = evaluator(evaluate.weights_of(state))
    writer.write(step, "eval", metrics)
    bar.say(f"step {step}/{num_steps} eval {listed(metrics)}")
    name = f"ema_{run.task.best}"
    value, loss = metrics[name], metrics.get("ema_loss", 0.0)
    best.add(step, value, loss)
    # It may hold one of the future: a killed run got further than this.
    if rank(value, loss, step) > checkpoints.best():
      checkpoints.save_best(step, state, name, value, loss)
    return metrics

  # An evaluation follows its checkpoint, so it may have been cut off.
  due = start in cadence.evaluate_after
  results = evaluate_now(start) if due else None
  macs, peak_flops = run.costs()
  timer = clock.Clock(
    start, num_steps, began, progress.useful_seconds, peak_flops
  )
  with run.batches(start) as batches, bar.steps(start, num_steps) as shown:
    # One batch is always on its way to the devices before its step.
    if start < num_steps:
      batch, bad_ids, wait = _next_batch(run, batches)
    for step in range(start, num_steps):
      if best.is_over(cadence.patience):
        break
      # The order is a contract: step, log, checkpoint, evaluate.

      # --- Step; the next batch is loaded and copied while it runs ----------

      size, images = plan.size(step), plan.batch(step)
      with tools.trace.step(step):
        state, metrics = compiled[size, images](state, batch, frozen)
      progress.step = done = step + 1
      timer.add(images, wait, summary.train_flops(macs.get(size, 0), images))
      ledger.add(bad_ids)
      # Loading overlaps with the step, which runs asynchronously.
      if done < num_steps:
        batch, bad_ids, wait = _next_batch(run, batches)
      # Reads the step before: this one may still run.
      window.add(done, metrics)
      shown.update()
      tools.trace.end(done, metrics)

      # --- Log --------------------------------------------------------------

      if cadence.logs(done, num_steps):
        means = window.take()
        means["learning_rate"] = float(metrics["learning_rate"])
        times, left = timer.read(done)
        where = {"epoch": plan.epoch(step), "image_size": size}
        values = means | times | where
        if bad_ids is not None:
          values["bad_images"] = ledger.update()
        with timer.logging():
          writer.write(done, "train", values)
          bar.say(progress_line(done, num_steps, values, left))

      # --- Checkpoint -------------------------------------------------------

      stopping = tools.signals.received is not None
      if jax.process_count() > 1:
        stopping = checkpoints.reached_preemption(done)
      due = done in cadence.evaluate_after
      save = done % cadence.checkpoint_every == 0 or done == num_steps
      # A run that stops after an evaluation is found finished there again.
      save |= stopping or (cadence.patience is not None and due)
      if save:
        window.flush()  # a state that is not finite is not saved
        progress.bad_images = ledger.update()
        progress.useful_seconds = timer.useful_seconds
        with timer.pause():
          checkpoints.save(done, state, progress.to_json())
      if stopping and done < num_steps:
        raise stop.Stopped(tools.signals.received, done, num_steps)

      # --- Evaluate ---------------------------------------------------------

      if due:
        with timer.pause():
          results = evaluate_now(done)
  if results is None:  # every run ends in an evaluation: its last step's
    raise RuntimeError(f"step {num_steps} was not evaluated")
  bar.say(timer.summary())
  if progress.step < num_steps:
    bar.say(
      f"stopped early at step {progress.step} of {num_steps}: "
      f"{cadence.patience} evaluations without a better EMA {run.task.best} "
      f"than {best.value:.4f}, of step {best.step}"
    )
  bar.say(evaluate.summary(run.task, results, progress.step))
  return results


def _compile_steps(
  run: experiment.Experiment,
  state: steps.TrainState,
  frozen: Any,
  go_on: Callable[[], None],
) -> dict[tuple[int, int], Callable[..., Any]]:
  """One train step compiled for each (size, batch) of the plan.

  What is compiled ahead of time can't be recompiled: another shape is an
  error. The state is donated, so that it is held in memory once.

  A shape may take half a minute, so `go_on` may end it after each.
  """
  graphdef = steps.split(run.model)[0]
  step = functools.partial(
    steps.train_step, graphdef=graphdef, recipe=run.recipe, task=run.task
  )
  replicated = run.layout.replicated
  jitted = jax.jit(
    step, donate_argnums=0, out_shardings=(replicated, replicated)
  )
  shapes = run.layout.replicated_shapes((state, frozen))
  transform, compiled = run.evaluation.transform, {}
  bar.say(
    f"compiling the train step for {len(run.plan.shapes)} shape(s) of images: "
    "on a CPU half a minute to a minute each, and much less when it was "
    "compiled before"
  )
  for number, (size, batch) in enumerate(run.plan.shapes, start=1):
    begin = time.monotonic()
    spec = pipeline.batch_spec(transform, size, train=True)
    arrays = run.layout.batch_shapes(spec, batch)
    compiled[size, batch] = jitted.lower(shapes[0], arrays, shapes[1]).compile()
    bar.say(
      f"compiled {number}/{len(run.plan.shapes)}: {batch} images of {size} px "
      f"in {time.monotonic() - begin:.1f} s"
    )
    go_on()
  return compiled


def _next_batch(
  run: experiment.Experiment, batches: pipeline.BatchIterator
) -> tuple[dict[str, jax.Array], np.ndarray | None, float]:
  """A batch on its way to the devices, its bad ids, the seconds waited."""
  begin = time.monotonic()
  batch = next(batches)
  wait = time.monotonic() - begin
  bad_ids = batch.pop("bad_ids", None)
  # device_put is asynchronous, so the copy overlaps with the step.
  return run.layout.put_batch(batch), bad_ids, wait


def _check_data(run: experiment.Experiment) -> check.Report | None:
  """Reads every image before training, and says what was found.

  Returns:
    What the first process found, there; None in the others.

  Raises:
    ConfigError: with the reason, where training makes no sense.
  """
  reports: list[check.Report] = []

  def work() -> str:
    reports.append(run.check_data())
    for line in reports[0].lines():
      bar.say(line)
    return reports[0].refusal()

  # Reading a large set takes longer than processes wait for each other.
  if refusal := distributed.from_first(work):
    raise ConfigError(f"config.data: {refusal}")
  return reports[0] if reports else None


def _describe(
  run: experiment.Experiment, evaluator: evaluate.Evaluator
) -> None:
  """Says what is about to be trained."""
  source, plan = run.source, run.plan
  bar.say(
    f"devices: {run.layout.num_devices} x {jax.devices()[0].device_kind}, "
    f"{jax.process_count()} process(es)"
  )
  bar.say(
    f"data: {source.name}, {len(source)} images for training, "
    f"{evaluator.num_images} for evaluation, {len(source.class_names)} classes"
  )
  bar.say(f"plan: {plan.num_steps} steps in {plan.num_epochs} epochs")
  _, params, _ = steps.split(run.model)
  for line in parameter_table(params, run.model.layers):
    bar.say(line)
