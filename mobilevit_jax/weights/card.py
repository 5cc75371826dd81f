"""The model card of weights, from what the folder of their run remembers."""

from collections.abc import Sequence
import json
from typing import Any

from etils import epath

from mobilevit_jax import __version__
from mobilevit_jax import models
from mobilevit_jax.weights.source import FoundWeights

_MOST_LABELS = 100
# What of a configuration says most about a run.
_SHOWN = (
  *("data.name", "data.train_split", "data.eval_split", "data.few_shot"),
  *("weights.source", "weights.reset", "plan.num_epochs", "plan.num_steps"),
  *("plan.sizes", "plan.base_batch", "plan.groups", "optim.name"),
  *("optim.peak_lr", "optim.weight_decay", "eval.size", "seed"),
)


def text(
  found: FoundWeights,
  name: str,
  labels: Sequence[str],
  *,
  licence: str | None = None,
) -> str:
  """Markdown with the Hub's header.

  Args:
    found: the weights; of a run, its folder is read.
    name: of the variant.
    labels: class names.
    licence: its identifier; without one the card says that none is stated.
  """
  # Read by the Hub: https://huggingface.co/docs/hub/model-cards.
  header = [
    "---",
    "library_name: timm",
    "pipeline_tag: image-classification",
    "tags: [image-classification, mobilevit, timm, transformers, jax]",
    *([f"license: {licence}"] if licence else []),
    "---",
  ]
  # A card of a thousand names would be read by nobody.
  shown = json.dumps(list(labels[:_MOST_LABELS]), ensure_ascii=False)
  rest = len(labels) - _MOST_LABELS
  lines = [
    *header,
    "",
    f"# {name}, {len(labels)} classes",
    "",
    f"{name} ({models.family_of(name).reference}), written by mobilevit_jax "
    f"{__version__}. Images are RGB in [0, 1], without mean and deviation; the "
    "files say how they are resized and cropped.",
    "",
    "## Use",
    "",
    "```python",
    "import timm",
    "",
    'net = timm.create_model("hf-hub:OWNER/NAME", pretrained=True)',
    '# Of a folder: "local-dir:FOLDER".',
    "```",
    "",
    "```python",
    "import transformers",
    "",
    "net = transformers.AutoModelForImageClassification.from_pretrained(",
    '  "OWNER/NAME", subfolder="transformers"',
    ")",
    "```",
    "",
    "## Classes",
    "",
    "```json",
    shown,
    "```",
    *([f"and {rest} more, in `config.json`."] if rest > 0 else []),
    "",
    "## Training",
    "",
    *_training(found),
    "",
    "## Limits",
    "",
    "What is above is all that is recorded. Nothing is known about other "
    "images than those it was evaluated on"
    + (
      "."
      if licence
      else "; no licence is stated, neither of the weights nor of the images."
    ),
    "",
  ]
  return "\n".join(lines)


def _training(found: FoundWeights) -> list[str]:
  """What the folder of a run tells, as lines."""
  # Weights of others come without a record.
  if found.step is None:
    return ["These weights are not of a run of this package: nothing is known."]
  folder = epath.Path(found.name)
  if not (folder / "config.json").exists():  # WORKDIR/best
    folder = folder.parent
  config = json.loads((folder / "config.json").read_text())
  lines = ["| | |", "|---|---|"]
  # Fields by their dotted path; those of older runs may be missing.
  for field in _SHOWN:
    value: Any = config
    for part in field.split("."):
      value = value.get(part) if isinstance(value, dict) else None
    if value is not None:
      lines.append(f"| `{field}` | `{json.dumps(value)}` |")
  lines += ["", f"Weights: {found.which} of step {found.step}."]
  # The command of the first start; later ones only resume.
  starts = _lines(folder / "starts.jsonl")
  if starts:
    lines += ["", "```", str(starts[0].get("command")), "```"]
  # Metrics of an evaluation come twice: of the averages, and of the raw
  # weights.
  prefix = "raw_" if found.which == "raw" else "ema_"
  records = [
    record
    for record in _lines(folder / "metrics.jsonl")
    if record.get("kind") == "eval" and record.get("step") == found.step
  ]
  if not records:
    return [*lines, "", "This step was not evaluated."]
  figures = {
    key.removeprefix(prefix): value
    for key, value in records[-1].items()
    if key.startswith(prefix) and value is not None
  }
  # The last: a step is evaluated again after a restart.
  images = records[-1].get("images", 0)
  lines += ["", f"On {images:.0f} images that were held out:", ""]
  lines += ["| | |", "|---|---|"]
  return lines + [f"| {key} | {value:.4f} |" for key, value in figures.items()]


def _lines(path: epath.Path) -> list[dict[str, Any]]:
  """The whole lines of a file of JSON lines, if it is there."""
  records = []
  for line in path.read_text().splitlines() if path.exists() else []:
    try:
      records.append(json.loads(line))
    except ValueError:
      continue  # half a line, of a killed process
  return records
