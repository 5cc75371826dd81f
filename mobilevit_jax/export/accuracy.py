"""Scores the very files that ship: top-1, mean IoU or mAP on images of yours.

    python -m mobilevit_jax.export.accuracy FILE... --config=WORKDIR
    python -m mobilevit_jax.export.accuracy FILE... --data=folder \
      --data_dir=PHOTOS

A .tflite, .onnx or .zip file is run in its own engine on the held-out images of
a run (or of a configuration), or of `--data`. What it does, its classes, how
images are prepared and how boxes are suppressed is read from the file itself;
the metric is the one of the task's evaluation.
"""

import argparse
from collections.abc import Mapping, Sequence
import json
import pathlib
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

from mobilevit_jax import experiment
from mobilevit_jax.config import CONFIG_FILE
from mobilevit_jax.config import read_config
from mobilevit_jax.config import UserError
from mobilevit_jax.data import examples
from mobilevit_jax.data import pipeline
from mobilevit_jax.data import sources
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import metadata
from mobilevit_jax.export import nms
from mobilevit_jax.export import verify
from mobilevit_jax.export import views
from mobilevit_jax.run import stop
from mobilevit_jax.tasks import classify
from mobilevit_jax.tasks.task import Task

Rows = dict[str, np.ndarray]
_BATCH = 32  # images at a time
# Of the sets whose held-out split is not called "val" (ours) or "validation"
# (TFDS's).
_HELD_OUT = {
  "digits": "test",
  "ade20k": "validation",
  "coco_voc21": "val2017",
  "pet_masks": "test",
}


class Shipped:
  """An exported file, by what it says of itself.

  Attributes:
    name: of the file.
    size: in bytes.
    document: its metadata.
    task: whose meter judges it.
    view: how images are prepared for it.
  """

  def __init__(self, path: pathlib.Path):
    """Raises ValueError or OSError for a file that can't be run here."""
    # The ending says which engine runs it.
    # The engine by the file's ending; CoreML has none here.
    found = [f for f in formats.FORMATS.values() if f.suffix == path.suffix]
    runnable = [f.suffix for f in formats.FORMATS.values() if f.engine]
    if not found or found[0].engine is None:
      raise ValueError(f"{path} must end in {', '.join(runnable)}")
    content = path.read_bytes()
    self.name, self.size = path.name, len(content)
    self.document = metadata.read(found[0].metadata(content), str(path))
    if self.document["task"] not in experiment.TASKS:
      raise ValueError(
        f"{path} answers with {self.document['task']}, which have no metric"
      )
    kind = experiment.TASKS[self.document["task"]]
    self.task = kind.make(None, self.document["num_classes"])
    how = self.document["preprocessing"]
    fields = {}
    # The file's own metadata say how images become its input.
    if how["resize"] == "crop":
      fields = {"preset": how["preset"], "resize_size": how["shorter_side"]}
    self.view = views.View(kind.transform(**fields), how["size"])
    self._engine = found[0].engine(content)

  def check_classes(self, source: examples.Source) -> str | None:
    """What to say of names that differ, if anything.

    Raises:
      ValueError: for images of other classes, or of the same in another order.
    """
    own, theirs = self.document["labels"], source.class_names
    # More outputs than classes are fine: spare classes are simply never right.
    count = self.document["num_classes"]
    if count < len(theirs):
      raise ValueError(
        f"{self.name} has {count} classes, and {source.name} {len(theirs)}"
      )
    if own is None or tuple(own[: len(theirs)]) == tuple(theirs):
      return None
    # The same names in another order: every answer would be counted wrong.
    if sorted(own) == sorted(theirs):
      raise ValueError(
        f"{self.name} and {source.name} have their classes in another order: "
        f"{', '.join(own)}; {', '.join(theirs)}"
      )
    # Other words for the same classes, such as synonyms: a remark, no error.
    place = next(i for i, name in enumerate(theirs) if own[i] != name)
    return (
      f"{self.name}: class {place} is {own[place]!r}, in the data "
      f"{theirs[place]!r}; counted as the same"
    )

  def answers(self, images: np.ndarray) -> contract.Outputs:
    """What the file answers to uint8 `[n, size, size, 3]`."""
    options = contract.Options(input=self.document["input"]["type"])
    batch = self.document["input"]["shape"][0]
    inputs = verify.as_input(images, options)
    # A fixed batch is part of the file's input shape.
    return contract.in_batches(self._engine, inputs, batch or len(images))

  def rows(self, batch: Mapping[str, np.ndarray]) -> Rows:
    """What the meter needs: `Task.outputs`, of the file's answers."""
    found = self.answers(batch["images"])
    # --- A detector: boxes, suppressed by the file or by us.
    if "boxes" in found:
      return found if "classes" in found else self._suppressed(found)
    if "mask" in found:
      return {"classes": found["mask"]}
    # --- A segmenter: classes, or logits of pixels.
    ((name, values),) = found.items()
    if values.ndim == 4:
      return {"classes": np.argmax(values, -1).astype(np.uint8)}
    # log(softmax) differs from the logits by a constant, which neither the rank
    # nor the loss notices. `tiny` keeps log finite.
    if name == "probabilities":
      values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    logits, labels = jnp.asarray(values), jnp.asarray(batch["labels"])
    return {
      "rank": np.asarray(classify.rank(logits, labels)),
      "loss": np.asarray(classify.cross_entropy(logits, labels)),
    }

  def _suppressed(self, found: contract.Outputs) -> Rows:
    """Detections, padded, by the function that runs on a phone."""
    fields = dict(self.document["nms"])
    del fields["in_file"]
    how = nms.Suppression(**fields)
    # Suppression leaves a number of boxes of its own for each image; the meter
    # wants one shape, and knows the padding by scores of 0.
    count = len(found["boxes"])
    rows = {
      "boxes": np.zeros((count, how.most, 4), np.float32),
      "scores": np.zeros((count, how.most), np.float32),
      "classes": np.zeros((count, how.most), np.int32),
    }
    for index in range(count):
      kept = nms.suppress(found["boxes"][index], found["scores"][index], how)
      for values, own in zip(rows.values(), kept, strict=True):
        values[index, : len(own)] = own
    return rows


def score(
  file: Shipped, source: examples.Source, count: int | None = None
) -> dict[str, float]:
  """The task's metrics of a file, on `count` images spread evenly, or all."""
  total = len(source)
  count = min(count or total, total)
  # Evenly spread: sources are often sorted by class.
  ids = np.arange(count) * total // count
  size = file.view.size
  # The last batch may be smaller; the pipeline fills it up.
  plan = [
    pipeline.EvalBatch(size, ids[first : first + _BATCH])
    for first in range(0, count, _BATCH)
  ]
  meter = file.task.meter(source)
  batches = pipeline.eval_batches(
    source, file.view.transform, size=size, batch=_BATCH, plan=plan
  )
  with batches:
    for batch in batches:
      # Padding of the last batch is no image.
      real = batch.pop("batch_mask") > 0
      batch = {name: value[real] for name, value in batch.items()}
      found = file.rows(batch)
      del batch["images"]
      meter.add({**batch, **found})
  # One process alone, so there is nothing to gather.
  meter.merge(lambda rows: rows)
  return meter.result()


@stop.in_one_line("accuracy", "it only reads")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args, fields = _parser().parse_known_args(argv)
  try:
    if unknown := [f for f in fields if not f.startswith("--config.")]:
      raise ValueError(f"unrecognized arguments: {' '.join(unknown)}")
    _main(args, fields)
  except (UserError, ValueError, OSError) as error:
    print(f"accuracy: {error}", file=sys.stderr)
    return 1
  return 0


def _main(args: argparse.Namespace, fields: Sequence[str]) -> None:
  if args.images is not None and args.images < 1:
    raise ValueError(f"--images={args.images} must be at least 1")
  files = [Shipped(path) for path in args.files]
  if len({file.document["task"] for file in files}) > 1:
    raise ValueError("the files are of different tasks: give one task's")
  source = _source(args, fields)
  for file in files:
    if (note := file.check_classes(source)) is not None:
      print(f"accuracy: {note}", file=sys.stderr)
  # File after file over the same images: each sees what the others see.
  results = [
    {
      "file": file.name,
      "bytes": file.size,
      "precision": file.document["precision"],
      **score(file, source, args.images),
    }
    for file in files
  ]
  if args.json:
    print(json.dumps(results, indent=1))
    return
  count = min(args.images or len(source), len(source))
  print(f"{count} of {len(source)} images of {source.name}")
  _print(files[0].task, results)


def _print(task: Task, results: Sequence[Mapping[str, Any]]) -> None:
  width = max(4, *(len(row["file"]) for row in results))
  titles = "".join(f" {name:>{_width(name)}}" for name in task.shown)
  print(f"{'file':<{width}} {'precision':<12} {'MB':>6}{titles}")
  for row in results:
    values = "".join(f" {row[name]:{_width(name)}.4f}" for name in task.shown)
    megabytes = row["bytes"] / 1e6
    print(
      f"{row['file']:<{width}} {row['precision']:<12} {megabytes:6.2f}{values}"
    )


def _width(name: str) -> int:
  return max(len(name), 7)


def _source(args: argparse.Namespace, fields: Sequence[str]) -> examples.Source:
  """The held-out images of a run, of a configuration, or of `--data`."""
  if (args.config is None) == (args.data is None):
    raise ValueError("give --config or --data")
  if args.data is not None:
    # By default the images that weren't trained on.
    usual = "val" if args.data in sources.SOURCES else "validation"
    split = args.split or _HELD_OUT.get(args.data, usual)
    name, folder = args.data, args.data_dir
  else:
    # What a run was evaluated on, and not its training images.
    data = _config(args.config, fields)["data"]
    name, split = data["name"], args.split or data["eval_split"]
    folder = args.data_dir or data["dir"]
  return sources.make_source(name, split, data_dir=folder, prepare=False)


def _config(name: str, fields: Sequence[str]) -> Mapping[str, Any]:
  """A run's record, or a configuration's file with fields set."""
  path = pathlib.Path(name)
  if path.is_dir():
    if fields:
      raise ValueError(f"{' '.join(fields)}: {name} is a run, as it was")
    path /= CONFIG_FILE
    return json.loads(path.read_text(encoding="utf-8"))
  return read_config(name, fields).to_dict()


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mobilevit_jax.export.accuracy",
    description="Prints top-1, mean IoU or mAP of exported files.",
  )
  add = parser.add_argument
  add("files", metavar="FILE", nargs="+", type=pathlib.Path)
  add(
    "--config",
    help="a run's folder, or a configuration's file with its argument: the "
    "data is theirs; --config.FIELD=VALUE sets a field of the latter",
  )
  add("--data", help="instead: digits, folder, masks, coco_json, a TFDS name")
  add("--data_dir", help="the folder, or where TFDS sets lie")
  add("--split", help="to judge on; by default the held-out one")
  add("--images", type=int, help="how many; by default all")
  add("--json", action="store_true", help="all numbers, as JSON")
  return parser


if __name__ == "__main__":
  sys.exit(main())
