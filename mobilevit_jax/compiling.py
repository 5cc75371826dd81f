"""Compilation ahead of the loop, so that nothing compiles inside it."""

from collections.abc import Callable
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from mobilevit_jax import experiment
from mobilevit_jax import steps


def compile_steps(
  run: experiment.Experiment,
  shapes: steps.TrainState,
  say: Callable[[str], None],
) -> dict[tuple[int, int], Callable[..., Any]]:
  """One train step compiled for each (size, batch) of the plan.

  What is compiled ahead of time can't be recompiled: another shape is an
  error. The state is donated, so that it is held in memory once.
  """
  graphdef = steps.split(run.model)[0]
  step = functools.partial(
    steps.train_step, graphdef=graphdef, recipe=run.recipe
  )
  replicated = run.layout.replicated
  jitted = jax.jit(
    step, donate_argnums=0, out_shardings=(replicated, replicated)
  )
  compiled = {}
  for number, (size, batch) in enumerate(run.plan.shapes, start=1):
    begin = time.monotonic()
    compiled[size, batch] = jitted.lower(
      shapes,
      images=run.layout.batch_shape((batch, size, size, 3), jnp.uint8),
      labels=run.layout.batch_shape((batch,), jnp.int32),
    ).compile()
    say(
      f"compiled {number}/{len(run.plan.shapes)}: {batch} images of {size} px "
      f"in {time.monotonic() - begin:.1f} s"
    )
  return compiled
