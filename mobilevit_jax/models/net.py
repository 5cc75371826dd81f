"""A net is a backbone and the head that reads its features."""

from typing import Any

from flax import nnx
import jax

# Paths of before heads were parts of their own. Initial weights are drawn by
# these names and files of ours hold them, so neither changes with the parts.
_PUBLIC = (
  ("backbone/", ""),
  ("head/expand/", "head/"),
  ("head/classifier/", "classifier/"),
)


def public_name(path: str) -> str:
  """What files call the tensor at `path`: `backbone/stem/...` is `stem/...`."""
  for prefix, name in _PUBLIC:
    if path.startswith(prefix):
      return name + path.removeprefix(prefix)
  return path


class Net(nnx.Module):
  """A backbone and the head that reads its features; see `create_model`.

  A backbone has `features(images, train, rngs)`, `LAYERS`, the names of its
  parts from the image on, and `channels`, the widths of its stages.

  A head has `head(features, train, rngs)`; `LAYERS`; `num_classes`; `OUTPUTS`,
  what exported files can answer, each by a function of what it returns to an
  array or to arrays by name, the usual one first; `CLASSIFIERS`, its parts
  whose shapes follow the number of classes; `count_classes`, from the lengths
  of its biases, by their paths in the head, to the number of classes; and
  `FROZEN`, its parts that belong to a
  frozen backbone. If there are any, it takes `frozen` as the net does, and
  keeps them still by itself. It may have `init(shapes, seed)`, its own first
  weights, where they are not drawn by the family's rules; `BACKBONE`, fields of
  the backbone that it wants by default; and `fields_of(shapes)`, its fields by
  the shapes of its weights.

  Attributes:
    backbone: gives the features.
    head: makes the outputs of them.
    frozen: whether training leaves the backbone as it is: it runs as in
      evaluation, its BatchNorm statistics and dropout included, and without a
      gradient.
  """

  def __init__(self, backbone: Any, head: Any, *, frozen: bool = False):
    self.backbone, self.head, self.frozen = backbone, head, frozen

  def __call__(
    self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> Any:
    """The head's output for RGB images in [0, 1], such as `[b, num_classes]`.

    Args:
      images: float `[b, h, w, 3]`.
      train: use batch statistics and dropout, record running statistics.
      rngs: with a "dropout" stream; needed for training with dropout.
    """
    if self.frozen:
      # Without `train` BatchNorm uses its running statistics and records none;
      # without the gradient XLA drops the backbone's backward pass.
      features = jax.lax.stop_gradient(self.features(images))
    else:
      features = self.features(images, train, rngs)
    return self.head(features, train, rngs)

  def features(
    self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> dict[str, jax.Array]:
    """Outputs of the backbone's stages, `"stage1"` (stride 2) and on."""
    return self.backbone.features(images, train, rngs)

  @property
  def layers(self) -> tuple[str, ...]:
    """Paths of the parts from the image to the outputs."""
    return (
      *(f"backbone/{name}" for name in self.backbone.LAYERS),
      *(f"head/{name}" for name in self.head.LAYERS),
    )

  @property
  def trained_layers(self) -> tuple[str, ...]:
    """Those of `layers` that training changes."""
    if not self.frozen:
      return self.layers
    # Parts such as the classifier's widening were trained with the backbone, so
    # freezing keeps them too.
    names = (n for n in self.head.LAYERS if n not in self.head.FROZEN)
    return tuple(f"head/{name}" for name in names)
