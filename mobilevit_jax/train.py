"""Training: one loop, read from top to bottom."""

import contextlib
import dataclasses
import time

from etils import epath
from flax import nnx
import jax
import numpy as np

from mobilevit_jax import checking
from mobilevit_jax import compiling
from mobilevit_jax import config as config_lib
from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax import summary
from mobilevit_jax.data import bad_images
from mobilevit_jax.data import check
from mobilevit_jax.data import pipeline
from mobilevit_jax.run import best as best_lib
from mobilevit_jax.run import checkpoint
from mobilevit_jax.run import clock
from mobilevit_jax.run import distributed
from mobilevit_jax.run import stop
from mobilevit_jax.run import window as window_lib
from mobilevit_jax.run import writer as writer_lib


def train_and_evaluate(
  config: config_lib.Config, workdir: epath.PathLike
) -> evaluate.Metrics:
  """Trains to the end of the plan, resuming from `workdir` where it can.

  Args:
    config: see `configs/`.
    workdir: for checkpoints, metrics and the configuration; made if absent.

  Returns:
    The last evaluation.

  Raises:
    config_lib.ConfigError: before anything is compiled or written.
    stop.Stopped: after a signal, once the run is saved.
    window_lib.NonFiniteError: with the step and the last good checkpoint.
  """
  config = config.copy_and_resolve_references()
  run = experiment.build(config)
  evaluator = evaluate.make_evaluator(config, run.model, run.layout)
  # Weights to start from are read before anything is written.
  initial = None
  if not checkpoint.exists(workdir):
    initial = experiment.initial_model(config, run.model)
  for change in config_lib.check_model_unchanged(config, workdir):
    say(f"warning: differs from this run's last start: {change}")
  describe(run, evaluator)
  is_first = jax.process_index() == 0
  checked = None
  if config.data.check and is_first and not checkpoint.exists(workdir):
    checked = checking.check_data(config, run, evaluator.source, say)
  epath.Path(workdir).mkdir(parents=True, exist_ok=True)
  if is_first:
    config_lib.save(config, run.source.class_names, workdir)
  if checked is not None:
    checked.save(epath.Path(workdir) / check.FILE)

  with contextlib.ExitStack() as stack:
    signals = stack.enter_context(
      stop.StopSignals(
        lambda name: say(f"{name}: stopping after this step"),
        alone=jax.process_count() == 1,
      )
    )
    listed = epath.Path(workdir) / "bad_images.jsonl" if is_first else None
    report = bad_images.Report(run.source, listed, distributed.gather)
    writer = writer_lib.Writer(workdir, enabled=is_first)
    stack.callback(writer.close)
    checkpoints = checkpoint.Checkpoints(
      workdir, keep=config.checkpoint.keep, say=say
    )
    stack.callback(checkpoints.close)
    trace = clock.Trace(workdir, **config.profile)
    stack.callback(trace.close)
    tools = _Tools(writer, checkpoints, signals, trace, report)
    try:
      return _loop(run, config, initial, evaluator, tools)
    except jax.errors.JaxRuntimeError as error:
      distributed.leave_if_lost(error)
      raise
    except window_lib.NonFiniteError as error:
      checkpoints.wait()
      step = checkpoints.latest_step()
      where = "none was saved" if step is None else f"step {step} in {workdir}"
      raise window_lib.NonFiniteError(
        f"{error}; last good checkpoint: {where}"
      ) from None


@dataclasses.dataclass(frozen=True)
class _Tools:
  """What the loop writes to and listens to."""

  writer: writer_lib.Writer
  checkpoints: checkpoint.Checkpoints
  signals: stop.StopSignals
  trace: clock.Trace
  report: bad_images.Report


def _loop(
  run: experiment.Experiment,
  config: config_lib.Config,
  initial: nnx.Module | None,
  evaluator: evaluate.Evaluator,
  tools: _Tools,
) -> evaluate.Metrics:
  plan, num_steps = run.plan, run.plan.num_steps
  writer, checkpoints, report = tools.writer, tools.checkpoints, tools.report
  shapes = experiment.state_shapes(run.model, run.recipe, run.layout)
  if checkpoints.latest_step() is None:
    initial = initial or experiment.initial_model(config, run.model)
    state = experiment.initial_state(initial, run.recipe, run.layout)
    start = 0
    progress = {
      "window": {},
      "bad_images": 0,
      "useful_seconds": 0.0,
      "best": dataclasses.asdict(best_lib.Best()),
    }
  else:
    start, state, progress = checkpoints.restore(shapes)
    if start > num_steps:
      raise config_lib.ConfigError(
        f"the newest checkpoint is of step {start}, past the {num_steps} "
        "steps of this config; use another --workdir"
      )
    say(f"resuming at step {start} of {num_steps}")
  window = window_lib.Window(**progress["window"])
  report.count = progress["bad_images"]
  best = best_lib.Best(**progress["best"])
  writer.rewind(start)
  began = writer.note_start(start)
  compiled = (
    compiling.compile_steps(run, shapes, say) if start < num_steps else {}
  )
  begin = time.monotonic()
  evaluator.compile()
  say(f"compiled the evaluation in {time.monotonic() - begin:.1f} s")

  def evaluate_now(step: int) -> evaluate.Metrics:
    metrics = evaluator(evaluate.weights_of(state))
    writer.write(step, "eval", metrics)
    say(f"step {step}/{num_steps} eval {writer_lib.listed(metrics)}")
    best.add(step, metrics["ema_top1"])
    # It may hold one of the future: a killed run got further than this.
    if metrics["ema_top1"] > checkpoints.best_top1():
      checkpoints.save_best(step, state, metrics["ema_top1"])
    return metrics

  due = eval_steps(run, config.eval.every_epochs)
  patience = config.early_stop.patience
  # An evaluation follows its checkpoint, so it may have been cut off.
  results = evaluate_now(start) if start in due else None
  macs, peak_flops = experiment.costs(run, config)
  useful = progress["useful_seconds"]
  timer = clock.Clock(start, num_steps, began, useful, peak_flops)
  done = start
  with _batches(run, config, start) as batches:
    if start < num_steps:
      batch, bad_ids, wait = _next_batch(run, batches)
    for step in range(start, num_steps):
      if best.is_over(patience):
        break
      # The order is a contract: step, log, checkpoint, evaluate.
      size, images = plan.size(step), plan.batch(step)
      with tools.trace.step(step):
        state, metrics = compiled[size, images](state, **batch)
      done = step + 1
      timer.add(images, wait, summary.train_flops(macs.get(size, 0), images))
      report.add(bad_ids)
      if done < num_steps:  # loads and copies while the step runs
        batch, bad_ids, wait = _next_batch(run, batches)
      window.add(done, metrics)
      tools.trace.end(done, metrics)

      if done % config.log_every_steps == 0 or done == num_steps:
        means = window.take()
        means["learning_rate"] = float(metrics["learning_rate"])
        times, left = timer.read(done)
        where = {"epoch": plan.epoch(step), "image_size": size}
        values = means | times | where
        if config.data.on_bad_image == "replace":
          values["bad_images"] = report.update()
        with timer.logging():
          writer.write(done, "train", values)
          say(writer_lib.progress_line(done, num_steps, values, left))

      stopping = tools.signals.received is not None
      if jax.process_count() > 1:
        stopping = checkpoints.reached_preemption(done)
      is_due = done % config.checkpoint.every_steps == 0
      # A run that stops after an evaluation is found finished there again.
      is_due |= patience is not None and done in due
      if is_due or stopping or done == num_steps:
        window.flush()  # a state that is not finite is not saved
        progress = {
          "window": {"sums": window.sums, "count": window.count},
          "bad_images": report.update(),
          "useful_seconds": timer.useful_seconds,
          "best": dataclasses.asdict(best),
        }
        with timer.pause():
          checkpoints.save(done, state, progress)
      if stopping and done < num_steps:
        raise stop.Stopped(tools.signals.received, done, num_steps)
      if done in due:
        with timer.pause():
          results = evaluate_now(done)
  if results is None:  # every run ends in an evaluation: its last step's
    raise RuntimeError(f"step {num_steps} was not evaluated")
  say(timer.summary())
  if done < num_steps:
    say(
      f"stopped early at step {done} of {num_steps}: {patience} evaluations "
      f"without a better EMA top-1 than {best.top1:.4f}, of step {best.step}"
    )
  say(evaluate.summary(results, done))
  return results


def eval_steps(run: experiment.Experiment, every_epochs: int) -> set[int]:
  """Steps to evaluate after: the ends of epochs, and of the run."""
  ends = [*run.plan.epoch_starts[1:].tolist(), run.plan.num_steps]
  return {*ends[every_epochs - 1 :: every_epochs], run.plan.num_steps}


def _batches(
  run: experiment.Experiment, config: config_lib.Config, start: int
) -> pipeline.BatchIterator:
  return pipeline.train_batches(
    run.plan,
    run.source,
    seed=config.seed,
    augmentation=run.augmentation,
    on_bad_image=config.data.on_bad_image,
    start_step=start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    num_workers=config.data.num_workers,
    prefetch_batches=config.data.prefetch_batches,
  )


def _next_batch(
  run: experiment.Experiment, batches: pipeline.BatchIterator
) -> tuple[dict[str, jax.Array], np.ndarray | None, float]:
  """A batch on its way to the devices, its bad ids, the seconds waited."""
  begin = time.monotonic()
  batch = next(batches)
  wait = time.monotonic() - begin
  bad_ids = batch.pop("bad_ids", None)
  return run.layout.put_batch(batch), bad_ids, wait


def say(text: str) -> None:
  """A line on the terminal, from the first process alone."""
  if jax.process_index() == 0:
    print(text, flush=True)


def describe(run: experiment.Experiment, evaluator: evaluate.Evaluator) -> None:
  """Says what is about to be trained."""
  source, plan = run.source, run.plan
  say(
    f"devices: {run.layout.num_devices} x {jax.devices()[0].device_kind}, "
    f"{jax.process_count()} process(es)"
  )
  say(
    f"data: {source.name}, {len(source)} images for training, "
    f"{evaluator.num_images} for evaluation, {source.num_classes} classes"
  )
  say(f"plan: {plan.num_steps} steps in {plan.num_epochs} epochs")
  for line in writer_lib.parameter_table(steps.split(run.model)[1]):
    say(line)
