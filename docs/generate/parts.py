"""The parts of pages that are made from the code when the site is built."""

from collections.abc import Callable

from docs.generate import architecture
from docs.generate import commands
from docs.generate import configuration
from docs.generate import demos
from docs.generate import heads
from docs.generate import peers
from docs.generate import training
from mobilevit_jax.weights import teaching


def teaching_table() -> str:
  """The weights that come with the package, from their table."""
  lines = [
    "| source | net | data | weights | result |",
    "|---|---|---|---|---|",
  ]
  commands = []
  for name, row in teaching.TEACHING.items():
    cells = (f"`teaching:{name}`", row.about, row.data, row.licence, row.result)
    lines.append(f"| {' | '.join(cells)} |")
    commands += [f"    {command}" for command in row.commands]
  return "\n".join([*lines, "", "Made by", "", *commands])


PARTS: dict[str, Callable[..., str]] = {
  "batches": training.batches,
  "commands": commands.reference,
  "config": configuration.reference,
  "config_changes": configuration.changes,
  "config_own": configuration.own_fields,
  "demos": demos.links,
  "figure_accuracy_by_latency": peers.accuracy_by_latency,
  "figure_accuracy_by_size": peers.accuracy_by_size,
  "figure_block": architecture.block,
  "figure_deeplabv3": heads.deeplabv3,
  "figure_learning_rate": training.learning_rate,
  "figure_sizes": training.sizes,
  "figure_ssdlite": heads.ssdlite_levels,
  "figure_stages": architecture.stages,
  "figure_unfold": architecture.unfold,
  "heads": heads.counts,
  "lengths": training.lengths,
  "models": architecture.sizes,
  "teaching": teaching_table,
}


def make(request: str) -> str:
  """Markdown of a part.

  Args:
    request: its name in `PARTS`, and the words and numbers it takes, by spaces.

  Raises:
    ValueError: if there is no such part, or its words are wrong.
  """
  name, *words = request.split()
  if name not in PARTS:
    raise ValueError(f"no part {name!r}, only {', '.join(PARTS)}")
  try:
    return PARTS[name](*(int(w) if w.isdecimal() else w for w in words))
  except (LookupError, TypeError) as error:
    raise ValueError(f"{request}: {error}") from error
