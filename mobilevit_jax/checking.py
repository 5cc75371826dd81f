"""The data's check before training: `config.data.check`."""

from collections.abc import Callable

from mobilevit_jax import config as config_lib
from mobilevit_jax import experiment
from mobilevit_jax.data import check
from mobilevit_jax.data import examples


def check_data(
  config: config_lib.Config,
  run: experiment.Experiment,
  held_out: examples.Source,
  say: Callable[[str], None],
) -> check.Report:
  """Reads every image of both splits, and says what was found.

  Args:
    config: of the run.
    run: its experiment.
    held_out: what it is evaluated on.
    say: called with each line.

  Raises:
    config_lib.ConfigError: with the reason, where training makes no sense.
  """
  source = run.source
  if config.data.few_shot is not None:  # of a class, one may be wanted
    source = experiment.open_source(config, config.data.train_split)
  name = config.data.eval_split
  if name == config.data.train_split:
    name = f"{name} (evaluation)"
  report = check.check_splits(
    {config.data.train_split: source, name: held_out},
    size=min(size for size, _ in run.plan.shapes),
    on_bad_image=config.data.on_bad_image,
    progress=True,
  )
  for line in report.lines():
    say(line)
  if refusal := report.refusal():
    raise config_lib.ConfigError(f"config.data: {refusal}")
  return report
