"""What the stages see, and from how far: features and receptive fields."""

from collections.abc import Callable
from typing import Any, TypeVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax import models

Model = TypeVar("Model", bound=models.Net)


def feature_maps(model: Any, image: Any) -> dict[str, np.ndarray]:
  """Outputs `[h, w, c]` of the stages, `"stage1"` to `"stage5"`.

  Args:
    model: from `create_model`.
    image: `[h, w, 3]`, RGB: uint8, or float in [0, 1].

  Raises:
    ValueError: for anything but one image, or one that is too small.
  """
  graphdef, state = nnx.split(model)

  @jax.jit
  def run(state: Any, images: jax.Array) -> dict[str, jax.Array]:
    net: Any = nnx.merge(graphdef, state)
    return net.features(images)

  # One image, but with its axis: the net has no other form.
  outputs = run(state, as_batch(image))
  return {stage: np.asarray(output[0]) for stage, output in outputs.items()}


def effective_receptive_field(
  model: Any, images: Any, stage: str = "stage5", *, attention: bool = True
) -> np.ndarray:
  """How much each pixel of the image moves the centre of a stage's map.

  Gradients, after Luo et al. 2016 (arXiv 1701.04128): see `centre_gradient`.

  Args:
    model: from `create_model`.
    images: `[b, h, w, 3]`, RGB: uint8, or float in [0, 1].
    stage: `"stage1"` to `"stage5"`.
    attention: False takes the transformer layers away: what is left are the
      convolutions (`without_attention`).

  Returns:
    float32 `[h, w]`, from 0.

  Raises:
    ValueError: for an unknown stage or misshapen or too small images.
  """
  stages = model.backbone.LAYERS[1:]
  if stage not in stages:
    raise ValueError(f"stage={stage!r} must be one of {', '.join(stages)}")
  if not attention:
    model = without_attention(model)
  # Gradients by the images alone; weights are constants here.
  graphdef, state = nnx.split(model)

  @jax.jit
  def run(state: Any, images: jax.Array) -> jax.Array:
    net: Any = nnx.merge(graphdef, state)
    return centre_gradient(lambda x: net.features(x)[stage], images)

  return np.asarray(run(state, as_floats(images)))


def centre_gradient(
  forward: Callable[[jax.Array], jax.Array], images: jax.Array
) -> jax.Array:
  """Gradient of a map's central pixel by the pixels that it is made from.

  Args:
    forward: `[b, h, w, c]` to a map of the same images, `[b, h', w', c']`.
    images: to take the mean over.

  Returns:
    `[h, w]`: the channels of the central pixel are summed, and so are the
    gradient's absolute values over the channels of a pixel.
  """

  # Summed over images: gradients of different images don't mix.
  def centre(images: jax.Array) -> jax.Array:
    y = forward(images)
    # Of an even map the middle is the lower right of the four.
    return jnp.sum(y[:, y.shape[1] // 2, y.shape[2] // 2])

  gradient = jnp.abs(jax.grad(centre)(images))
  return jnp.mean(jnp.sum(gradient, axis=-1), axis=0)


def without_attention(model: Model) -> Model:
  """A copy whose MobileViT blocks have no transformer layers.

  Their convolutions stay, and the LayerNorm at the end of `global_rep`, which
  mixes no pixels.
  """
  # A copy, as the model belongs to the caller.
  model = nnx.clone(model)
  for _, block in hybrid_blocks(model):
    block.global_rep = nnx.List([])
  return model


def hybrid_blocks(model: models.Net) -> list[tuple[str, Any]]:
  """The blocks that mix pixels, each with the name of its stage."""
  # By class: where the blocks are differs by family.
  kind = models.family_of(model).block
  return [
    (str(path[0]), block)
    for path, block in nnx.iter_modules(model.backbone)
    if isinstance(block, kind)
  ]


def contributing_area(field: np.ndarray, share: float = 0.95) -> float:
  """The least part of the image, from 0 to 1, that makes up `share` of a field.

  Args:
    field: from `effective_receptive_field`.
    share: of the sum over all pixels, above 0 and at most 1.

  Raises:
    ValueError: for a share out of range.
  """
  if not 0 < share <= 1:
    raise ValueError(f"share={share} must be above 0 and at most 1")
  # From the strongest pixel down, until the share is reached.
  sums = np.cumsum(np.sort(field, axis=None)[::-1], dtype=np.float64)
  count = int(np.searchsorted(sums, share * sums[-1])) + 1
  return count / field.size


def as_batch(image: Any) -> jax.Array:
  """One image `[h, w, 3]` as float32 `[1, h, w, 3]` in [0, 1]."""
  if np.ndim(image) != 3:
    raise ValueError(f"image must be [h, w, 3], not {np.shape(image)}")
  return as_floats(np.asarray(image)[None])


def as_floats(images: Any) -> jax.Array:
  """Images as float32 in [0, 1]; the model checks their shape."""
  images = np.asarray(images)
  # A float is taken to be in [0, 1] already.
  scale = 255 if images.dtype == np.uint8 else 1
  return jnp.asarray(images, jnp.float32) / scale
