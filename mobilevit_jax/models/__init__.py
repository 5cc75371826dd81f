"""`create_model`: every net by name, from explicit tables."""

from collections.abc import Callable, Mapping
import dataclasses
import inspect
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax.models import init
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import mobilevit_v2
from mobilevit_jax.models import mobilevit_v3
from mobilevit_jax.models.heads import classifier
from mobilevit_jax.models.heads import deeplabv3
from mobilevit_jax.models.heads import ssdlite
from mobilevit_jax.models.net import Net


@dataclasses.dataclass(frozen=True)
class Family:
  """What the rest of the package asks about a family of backbones.

  Attributes:
    name: its key in `FAMILIES`, `weights.names.TABLES` and `export.blocks`.
    backbone: its class, called with a variant and fields by keyword.
    variants: names to variants.
    init: initial weights, of a nested dict of shapes and a seed.
    block: class of the block that mixes pixels, in its `global_rep`.
    bgr: dialects of weights that were trained on BGR images.
    smallest: image side that it takes, in pixels.
    patch_sizes: height and width of a patch, of each kind of block.
    reference: the document that describes it.
  """

  name: str
  backbone: type[Any]
  variants: Mapping[str, Any]
  init: Callable[[dict[Any, Any], int], dict[Any, Any]]
  block: type[Any]
  bgr: tuple[str, ...]
  smallest: int
  patch_sizes: tuple[tuple[int, int], ...]
  reference: str


_V3 = (
  "arXiv 2209.15159, MobileViTv3: Mobile-Friendly Vision Transformer with "
  "Simple and Effective Fusion of Local, Global and Input Features"
)
# A new family is a row here, and under the same key in `weights.names.TABLES`
# and `export.blocks`; tests/test_families.py fails while it is in one table but
# not in the others.
FAMILIES: dict[str, Family] = {
  "mobilevit": Family(
    name="mobilevit",
    backbone=mobilevit.MobileViT,
    variants=mobilevit.VARIANTS,
    init=init.draw,
    block=mobilevit.MobileViTBlock,
    # Apple trained on OpenCV's images. transformers kept that order, timm
    # turned the first convolution round.
    bgr=("cvnets", "hf"),
    smallest=mobilevit.MIN_IMAGE_SIZE,
    patch_sizes=((2, 2),),
    reference="arXiv 2110.02178, MobileViT: Light-weight, General-purpose, and "
    "Mobile-friendly Vision Transformer",
  ),
  "mobilevitv2": Family(
    name="mobilevitv2",
    backbone=mobilevit_v2.MobileViTv2,
    variants=mobilevit_v2.VARIANTS,
    init=init.draw_torch,
    block=mobilevit_v2.MobileViTv2Block,
    bgr=(),  # ml-cvnets reads images with PIL since v0.2
    smallest=mobilevit.MIN_IMAGE_SIZE,
    patch_sizes=((2, 2),),
    reference="arXiv 2206.02680, Separable Self-attention for Mobile Vision "
    "Transformers",
  ),
  # Three rows for MobileViTv3: those that change v1's block read images as it
  # does, the one that changes v2's as that, and the names of weights follow
  # the depth.
  "mobilevitv3": Family(
    name="mobilevitv3",
    backbone=mobilevit_v3.MobileViTv3,
    variants=mobilevit_v3.VARIANTS,
    init=init.draw,
    block=mobilevit_v3.BlockOfV1,
    bgr=("cvnets",),
    smallest=mobilevit.MIN_IMAGE_SIZE,
    patch_sizes=((2, 2),),
    reference=_V3,
  ),
  "mobilevitv3_l2": Family(
    name="mobilevitv3_l2",
    backbone=mobilevit_v3.MobileViTv3L2,
    variants=mobilevit_v3.VARIANTS_L2,
    init=init.draw,
    block=mobilevit_v3.BlockOfV1,
    bgr=("cvnets",),
    smallest=mobilevit.MIN_IMAGE_SIZE,
    patch_sizes=((2, 2),),
    reference=_V3,
  ),
  "mobilevitv3_v2": Family(
    name="mobilevitv3_v2",
    backbone=mobilevit_v3.MobileViTv3OfV2,
    variants=mobilevit_v3.VARIANTS_V2,
    init=init.draw_torch,
    block=mobilevit_v3.BlockOfV2,
    bgr=(),
    smallest=mobilevit.MIN_IMAGE_SIZE,
    patch_sizes=((2, 2),),
    reference=_V3,
  ),
}
HEADS: dict[str, type[Any]] = {
  "classifier": classifier.Classifier,
  "deeplabv3": deeplabv3.DeepLabV3,
  "ssdlite": ssdlite.SSDLite,
}
VARIANTS: dict[str, Any] = {
  name: variant
  for family in FAMILIES.values()
  for name, variant in family.variants.items()
}


def family_of(model: str | Net) -> Family:
  """The row of a net, or of a variant's name.

  Raises:
    ValueError: for a name or a net of no family.
  """
  # The class must match exactly: MobileViTv3's backbones inherit from those of
  # v1 and v2, so that `isinstance` would find two families.
  name = model if isinstance(model, str) else ""
  for family in FAMILIES.values():
    own = type(getattr(model, "backbone", None)) is family.backbone
    if own or name in family.variants:
      return family
  said = name or type(model).__name__
  raise ValueError(f"model name={said!r} must be one of {', '.join(_names())}")


def head_of(model: Net) -> str:
  """The key in `HEADS` of a net's head."""
  return next(name for name, head in HEADS.items() if type(model.head) is head)


def full_name(name: str) -> str:
  """The variant that a short or a full name means, `mobilevit_s` for `s`.

  Raises:
    ValueError: for a name of none.
  """
  for full in _names():
    if name in (full, short_name(full)):
      return full
  raise ValueError(
    f"variant={name} must be one of {', '.join(map(short_name, _names()))}"
  )


def _names() -> list[str]:
  return [name for family in FAMILIES.values() for name in family.variants]


def short_name(name: str) -> str:
  """Inverse of `full_name`: `s` for `mobilevit_s`."""
  return name.removeprefix("mobilevit").removeprefix("_")


def abstract_model(name: str, head: str = "classifier", **fields: Any) -> Net:
  """The net with shapes in place of weights; arguments as `create_model`."""
  family = family_of(name)
  if head not in HEADS:
    raise ValueError(f"head={head!r} must be one of {', '.join(HEADS)}")
  # Configurations are text, so a type arrives by its name. Below this line
  # there are dtypes alone.
  if isinstance(fields.get("dtype"), str):
    fields["dtype"] = _compute_dtype(fields["dtype"])
  # What the head asks of its backbone, such as output stride 16 for a
  # segmenter, comes first, so that a field given by the caller wins.
  fields = {**getattr(HEADS[head], "BACKBONE", {}), **fields}
  # A field may belong to several parts (`bn_groups` is the backbone's and the
  # head's), so each part takes its own from the whole, and only what no part
  # knows is an error.
  of_backbone, of_head, of_net = (
    {key: fields[key] for key in _keywords(part) if key in fields}
    for part in (family.backbone, HEADS[head], Net)
  )
  if unknown := fields.keys() - {*of_backbone, *of_head, *of_net}:
    raise TypeError(
      f"{name} with head {head!r} has no field {', '.join(sorted(unknown))}"
    )

  def build() -> Net:
    backbone = family.backbone(family.variants[name], **of_backbone)
    return Net(backbone, HEADS[head](backbone, **of_head), **of_net)

  # Nothing is allocated here: a report on shapes, or loading weights over them,
  # needs no random values.
  return nnx.eval_shape(build)


def _keywords(part: type[Any]) -> list[str]:
  """What a class takes by keyword alone."""
  return inspect.getfullargspec(part.__init__).kwonlyargs


def create_model(
  name: str, head: str = "classifier", *, seed: int = 0, **fields: Any
) -> Net:
  """A net with freshly drawn weights.

  Args:
    name: a key of `VARIANTS`, such as `"mobilevit_s"`.
    head: a key of `HEADS`.
    seed: of the initial weights, which depend on it and on their path alone.
    **fields: keyword arguments of the backbone's class (`dropout`,
      `output_stride`), the head's (`num_classes`, `classifier_dropout`), both
      (`bn_groups`, `depthwise`, `dtype`) and the net's (`frozen`); see
      `models.mobilevit.MobileViT`, `models.heads` and `Net`. Where the
      families differ, such as in their dropout, None takes the family's own.

  Returns:
    The net; `net(images)` gives the head's output, `net.features(images)` the
    backbone's stages.

  Raises:
    ValueError: for an unknown name or head, or a field out of range.
    TypeError: for a field that none of them has.
  """
  return initialize(abstract_model(name, head, **fields), seed)


def initialize(model: Net, seed: int) -> Net:
  """The abstract net with weights drawn from `seed`.

  The rules are its family's, and its head's where that has its own.
  """
  # Values are drawn by path from numpy arrays, and put on the device at once:
  # one transfer in place of one compilation a tensor (see `models.init`).
  graphdef, state = nnx.split(model)
  shapes = nnx.to_pure_dict(state)
  values = family_of(model).init(shapes, seed)
  if hasattr(model.head, "init"):
    values["head"] = model.head.init(shapes["head"], seed)
  return nnx.merge(graphdef, jax.device_put(values))


def _compute_dtype(name: str) -> jnp.dtype:
  allowed = ("float32", "bfloat16", "float16", "float64")
  if name not in allowed:
    raise ValueError(f"dtype={name!r} must be one of {', '.join(allowed)}")
  return jnp.dtype(name)
