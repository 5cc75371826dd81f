"""The contract between a task and what trains, evaluates and shows it.

A task has two halves. This one runs on the device, and on the host that reads
its outputs; `mobilevit_jax.data.transforms` has the half that loads batches.
`experiment.TASKS` pairs them by name. A batch is a dict of arrays `[b, ...]`:
what the transform gives, with `images` as floats in [0, 1], and `ids` and
`sizes` (see `data.pipeline.batch_spec`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np

# Parameters nest by module; metrics and rows don't.
Tree = Any  # nested dict of arrays
Batch = Mapping[str, jax.Array]
Rows = Mapping[str, np.ndarray]  # of some examples: [n, ...]


class Meter(Protocol):
  """Gathers a metric over a set of images, exactly.

  The same rows give the same result in any order, in any batches, and divided
  among processes in any way.
  """

  def add(self, rows: Rows) -> None:
    """Takes examples: their arrays of the batch, without images, and outputs.

    Each process adds those that it loaded; padding is left out.
    """
    ...

  def merge(self, gather: Callable[[np.ndarray], np.ndarray]) -> None:
    """Joins what the processes have; all call it, once, after the last `add`.

    Args:
      gather: from this process's rows `[n, ...]` to those of all.
    """
    ...

  def result(self) -> dict[str, float]:
    """The metrics by name, after `merge`."""
    ...


class WithoutArrays:
  """The part of a task that has neither parameters nor frozen arrays."""

  @property
  def frozen(self) -> Tree:
    """Nothing."""
    return {}

  def init(self, seed: int) -> Tree:
    """No parameters of its own."""
    del seed
    return {}


class Task(Protocol):
  """What a net is trained to do.

  Attributes:
    best: the metric that the best checkpoint and early stopping follow; more
      of it is better.
    shown: the metrics of a run's last line, the best one among them.
    score: the name of the number in [0, 1] in each entry of `describe`.
  """

  best: ClassVar[str]
  shown: ClassVar[tuple[str, ...]]
  score: ClassVar[str]

  @property
  def frozen(self) -> Tree:
    """Arrays that the step is given and never trains; an empty dict for none.

    A teacher's weights, for instance.
    """
    ...

  def init(self, seed: int) -> Tree:
    """Parameters of the task's own; an empty dict for none.

    They are optimised, averaged and saved in checkpoints with the net's, and
    never exported.
    """
    ...

  def loss(
    self,
    model: Any,
    params: Tree,
    batch: Batch,
    key: jax.Array,
    frozen: Tree,
    step: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of a batch, and scalars to log.

    Args:
      model: the net, to be called with `train=True`.
      params: the task's own parameters.
      batch: of this step, or of one of its micro-batches.
      key: of all random draws, dropout included.
      frozen: the arrays of `frozen`, on the devices.
      step: number of updates done.
    """
    ...

  def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
    """What evaluation and prediction need of a batch, `[b, ...]` each."""
    ...

  def meter(self, source: Any) -> Meter:
    """A new meter for the outputs on a source's examples.

    Args:
      source: the examples; the meter may fetch an image's truth by its id.
    """
    ...

  def describe(
    self, outputs: Rows, class_names: Sequence[str], top: int
  ) -> list[dict[str, Any]]:
    """What is seen in one image, surest first, as JSON's values.

    Args:
      outputs: of one image, without the leading axis.
      class_names: of the net's classes.
      top: the most entries; each has a `class`, a `label` and the `score`.
    """
    ...

  def draw(
    self, image: np.ndarray, outputs: Rows, class_names: Sequence[str]
  ) -> np.ndarray:
    """A picture of what is seen, uint8 [h, w, 3].

    Args:
      image: uint8 [h, w, 3], RGB, as the transform gave it.
      outputs: of the image, without the leading axis.
      class_names: of the net's classes.
    """
    ...

  def truth(self, rows: Rows, class_names: Sequence[str]) -> Rows:
    """The outputs that would be right for one training image, to draw them.

    Args:
      rows: what the transform gave of the image.
      class_names: of the net's classes.
    """
    ...


@runtime_checkable
class Pictured(Protocol):
  """A task whose outputs are pictures, which prediction writes as such.

  Its `draw` takes an image of any size, not only as the transform gave it.
  """

  def picture(self, outputs: Rows, size: tuple[int, int]) -> Any:
    """A PIL image of a height and width, in pixels, of one image's outputs."""
    ...
