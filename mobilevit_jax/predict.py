"""Says what a net sees in images, with published weights or a run's own.

    python -m mobilevit_jax.predict --weights=SOURCE IMAGE_OR_FOLDER...

Prints the five likeliest classes of each image, or the surest boxes. An image
that can't be read is reported by name on standard error, the rest go on, and
the exit code is 1.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
from PIL import Image

from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import files as writer
from mobilevit_jax import steps
from mobilevit_jax.command import arguments
from mobilevit_jax.config import foreign
from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data.sources import files
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.run import sharding
from mobilevit_jax.run import stop
from mobilevit_jax.tasks.task import Pictured
from mobilevit_jax.tasks.task import Rows
from mobilevit_jax.weights import io
from mobilevit_jax.weights import names
from mobilevit_jax.weights.labels import find_class_names
from mobilevit_jax.weights.source import read_weights
from mobilevit_jax.weights.source import Which


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What a net sees in one image.

  Attributes:
    name: of the image's file.
    size: height and width of the image, in pixels.
    pixels: uint8 [size, size, 3], as the net saw it.
    outputs: of the task.
  """

  name: str
  size: tuple[int, int]
  pixels: np.ndarray
  outputs: Rows


class Predictor:
  """A net with its weights, and all that it needs to look at images.

  Attributes:
    task: what the net was trained for.
    class_names: of the net's classes.
    crop: which part of an image it looks at.
  """

  def __init__(
    self,
    source: str,
    *,
    variant: str | None = None,
    which: Which = "auto",
    preset: str | None = None,
    size: int | None = None,
    labels: str | None = None,
    protocol: str | None = None,
  ):
    """Weights from any source `load_weights` takes.

    Args:
      source: see `load_weights`.
      variant: `"xxs"`, `"xs"` or `"s"`, to insist on; else read off the
        weights.
      which: of a run's workdir; see `weights.source.read_weights`.
      preset: how images are cropped; by default as the run's own evaluation
        does, or as the weights' dialect was.
      size: image side; by default the run's own, or 256.
      labels: a file of class names (JSON list, or one a line), or `tfds:NAME`.
      protocol: how a segmenter sees an image, one of `PROTOCOLS` of
        `transforms.segment`; by default as its run was evaluated, or
        "stretch".

    Raises:
      ValueError, OSError: if anything can't be read or does not fit.
    """
    # --- The net, and the names of its classes.
    found = read_weights(source, which=which)
    fields = io.find_model(found)
    self._model = io.build_model(found, variant=variant)
    dialect = names.detect(found.tensors)
    self.class_names = find_class_names(labels, found, fields["num_classes"])
    # --- The task of its head, and how images are shown to it.
    task = experiment.task_of(fields.get("head", "classifier"))
    self._kind = experiment.TASKS[task]
    if size is None and not found.crop:
      size = self._kind.size
    self.crop = presets.choose(dialect, found.crop, preset=preset, size=size)
    # A run's images are seen as its evaluation saw them.
    # Of the run's sections, only what the task takes over.
    of_task, of_transform = (
      {name: value for name, value in own.items() if name in self._kind.kept}
      if isinstance(own := (found.config or {}).get(section), dict)
      else {}
      for section in ("task", "transform")
    )
    if protocol is not None:
      if "protocol" not in self._kind.kept:
        raise ValueError(
          f"--protocol={protocol}: these weights are no segmenter"
        )
      of_task["protocol"] = of_transform["protocol"] = protocol
    # A run's configuration comes from a file, and may hold anything.
    with foreign(source):
      self.task = self._kind.make(None, fields["num_classes"], **of_task)
      self._transform = self._kind.transform(
        **self._kind.view(self.crop), **of_transform
      )

  def __call__(
    self,
    paths: Sequence[pathlib.Path],
    *,
    batch: int = 32,
    report: Callable[[str], None],
  ) -> Iterator[Prediction]:
    """What the net sees in each image that can be read, in order.

    (Shape by shape, where images keep their aspect.)

    Args:
      paths: image files.
      batch: images at a time.
      report: called with a line about each image that can't be read.
    """
    # Broken images become padding, and are told by name.
    source = files.FileSource(paths, self.class_names)
    # The run's own evaluation, with these files for its source: what a net sees
    # is then the same to the bit.
    setup = experiment.Evaluation(
      task=self.task,
      transform=self._transform,
      source=source,
      model=self._model,
      layout=sharding.Layout(),
      size=self.crop.size,
      batch=min(batch, len(paths)),
      loading={"on_bad_image": "replace"},
    )
    evaluator = evaluate.Evaluator(setup)
    params, stats = setup.layout.replicate(steps.split(self._model)[1:])
    batches = evaluator.rows({"net": (params, stats)})
    # --- `rows` has a place for each planned image, `outputs` a row for each
    # that could be read.
    for planned, (rows, outputs) in zip(evaluator.plan, batches, strict=True):
      found = 0  # the outputs are those of the images that could be read
      for place, index in enumerate(planned.ids.tolist()):
        if rows["batch_mask"][place]:
          yield Prediction(
            source.place(index)[0],
            tuple(rows["sizes"][place].tolist()),
            rows["images"][place],
            {name: value[found] for name, value in outputs["net"].items()},
          )
          found += 1
        else:
          report(_why(setup, index))


def _why(setup: experiment.Evaluation, index: int) -> str:
  """What is wrong with an image that was left out."""
  try:
    # Done again, for its error: workers only say that an image is broken.
    setup.transform.evaluate(
      setup.transform.decode(setup.source[index]), setup.size
    )
  except examples.ImageError as error:
    return str(error)
  return f"{setup.source.place(index)[0]}: it could not be read a moment ago"


@stop.in_one_line("predict", "files that were written are whole")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 if any image could not be read."""
  args = arguments.predict().parse_args(argv)
  failures: list[str] = []

  def report(message: str) -> None:
    failures.append(message)
    print(f"predict: {message}", file=sys.stderr)

  # A file's name may hold what a terminal would obey.
  def report_image(message: str) -> None:
    report(writer.printable(message))

  try:
    # --- Everything that can be refused, before the first image is opened.
    _check_counts(size=args.size, batch=args.batch, top=args.top)
    paths = files.find_images(args.images)
    predictor = Predictor(
      args.weights,
      variant=args.variant,
      which=args.which,
      preset=args.preset,
      size=args.size,
      protocol=args.protocol,
      labels=args.labels,
    )
    if args.draw is not None:
      args.draw.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    if args.coco is not None and not hasattr(predictor.task, "coco_results"):
      raise ValueError(f"--coco={args.coco} needs weights of a detector")
    # --- Image by image: results appear as they come.
    found = predictor(paths, batch=args.batch, report=report_image)
    for prediction in found:
      _show(prediction, predictor, args, report_image)
      if args.coco is not None:
        task: Any = predictor.task  # not every one has these results
        # COCO's images are named by their ids: 000000000139.jpg is 139.
        results += task.coco_results(
          pathlib.PurePath(prediction.name).stem,
          prediction.outputs,
          prediction.size,
        )
    if args.coco is not None:
      writer.write_text(args.coco, json.dumps(results) + "\n")
  except (ValueError, OSError) as error:
    report(str(error))
  return 1 if failures else 0


def _check_counts(**counts: int | None) -> None:
  for name, count in counts.items():
    if count is not None and count < 1:
      raise ValueError(f"--{name}={count} must be at least 1")


def _show(
  prediction: Prediction,
  predictor: Predictor,
  args: argparse.Namespace,
  report: Callable[[str], None],
) -> None:
  """Prints what is seen, and draws it where that is asked for."""
  task, class_names = predictor.task, predictor.class_names
  top = task.describe(prediction.outputs, class_names, args.top)
  # NaN would be printed as a probability.
  if any(math.isnan(entry[task.score]) for entry in top):
    report(f"{prediction.name}: the net's answer is not a number")
    return
  if args.json:
    # One object a line, so that a reader need not wait for the end.
    print(json.dumps({"image": prediction.name, "top": top}), flush=True)
  else:
    print(writer.printable(prediction.name))
    for entry in top:
      label = writer.printable(entry["label"])
      print(f"  {entry[task.score]:7.2%}  {label}", flush=True)
  if args.draw is not None:
    # With its old ending in the name, so that a.jpg and a.png don't meet.
    name = f"{pathlib.PurePath(prediction.name).name}.png"
    pixels = prediction.pixels
    if isinstance(task, Pictured):
      # Whole, and of the size that the image has.
      data = pathlib.Path(prediction.name).read_bytes()
      pixels = augment.decode(data, prediction.name)
      mask = task.picture(prediction.outputs, pixels.shape[:2])
      _save(mask, args.draw / f"{name.removesuffix('.png')}.mask.png")
    names = [*map(writer.printable, class_names)]
    picture = task.draw(pixels, prediction.outputs, names)
    _save(Image.fromarray(picture), args.draw / name)


def _save(picture: Image.Image, path: pathlib.Path) -> None:
  with writer.whole(path, force=True) as part:
    picture.save(part, format="PNG")


if __name__ == "__main__":
  sys.exit(main())
