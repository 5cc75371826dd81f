"""The nets that inference is measured on, by their short names."""

from collections.abc import Callable
import dataclasses
import functools

from flax import nnx

from benchmarks import mobilenets
from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax.models.depthwise import DepthwiseKind


@dataclasses.dataclass(frozen=True)
class Row:
  """A net to measure.

  Attributes:
    make: the net, of the kind of its depthwise convolutions.
    size: image side that it is measured at by default, in pixels.
    output: of its files; "boxes" are also suppressed, in the file or beside it.
    torch: what PyTorch's engine runs in its place (`infer_worker`); None for
      nothing.
  """

  make: Callable[..., models.Net]
  size: int = 256
  output: str = "logits"
  torch: str | None = None


def _abstract(*args: str, **fields: int) -> Callable[..., models.Net]:
  return functools.partial(models.abstract_model, *args, **fields)


NETS: dict[str, Row] = {
  **{models.short_name(name): Row(_abstract(name)) for name in models.VARIANTS},
  "mobilenetv2": Row(mobilenets.mobilenet_v2),
  "mobilenetv3": Row(mobilenets.mobilenet_v3),
  # As the published segmenters and detectors are used.
  "xxs_deeplabv3": Row(
    _abstract("mobilevit_xxs", "deeplabv3", num_classes=21, output_stride=16),
    size=512,
    output="mask",
    torch="transformers",
  ),
  "xxs_ssdlite": Row(
    _abstract("mobilevit_xxs", "ssdlite", num_classes=80),
    size=320,
    output="boxes",
    torch="torchvision",
  ),
}
CLASSIFIERS = [name for name, row in NETS.items() if row.output == "logits"]


def abstract(name: str, depthwise: DepthwiseKind = "conv") -> models.Net:
  """The net without weights."""
  return nnx.eval_shape(lambda: NETS[name].make(depthwise=depthwise))


def random(name: str) -> models.Net:
  """The net with random weights, none of which a file could leave out."""
  return random_weights.randomize(abstract(name, "auto"))
