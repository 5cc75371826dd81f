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
from mobilevit_jax.models.heads import classifier
from mobilevit_jax.models.heads import deeplabv3
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
}
HEADS: dict[str, type[Any]] = {
  "classifier": classifier.Classifier,
  "deeplabv3": deeplabv3.DeepLabV3,
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
  for family in FAMILIES.values():
    if isinstance(model, str):
      if model in family.variants:
        return family
    elif type(getattr(model, "backbone", None)) is family.backbone:
      return family
  if isinstance(model, str):
    raise ValueError(
      f"model name={model!r} must be one of {', '.join(_names())}"
    )
  raise ValueError(
    f"model is a {type(model).__name__}; a Net of {', '.join(FAMILIES)} is "
    "expected"
  )


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
  if isinstance(fields.get("dtype"), str):
    fields["dtype"] = _compute_dtype(fields["dtype"])
  fields = {**getattr(HEADS[head], "BACKBONE", {}), **fields}
  parts = (family.backbone, HEADS[head], Net)
  of_backbone, of_head, of_net = (_take(part, fields) for part in parts)
  if unknown := fields.keys() - {*of_backbone, *of_head, *of_net}:
    raise TypeError(
      f"{name} with head {head!r} has no field {', '.join(sorted(unknown))}"
    )

  def build() -> Net:
    backbone = family.backbone(family.variants[name], **of_backbone)
    return Net(backbone, HEADS[head](backbone, **of_head), **of_net)

  return nnx.eval_shape(build)


def _take(part: type[Any], fields: dict[str, Any]) -> dict[str, Any]:
  """Those of the fields that are keywords of the class `part`."""
  return {
    name: fields[name]
    for name, parameter in inspect.signature(part.__init__).parameters.items()
    if name in fields and parameter.kind is parameter.KEYWORD_ONLY
  }


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
      `models.mobilevit.MobileViT`, `models.heads` and `Net`.

  Returns:
    The net; `net(images)` gives the head's output, `net.features(images)` the
    backbone's stages.

  Raises:
    ValueError: for an unknown name or head, or a field out of range.
    TypeError: for a field that none of them has.
  """
  return initialize(abstract_model(name, head, **fields), seed)


def initialize(model: Net, seed: int) -> Net:
  """The abstract net with weights drawn from `seed` by its family's rules."""
  graphdef, state = nnx.split(model)
  values = family_of(model).init(nnx.to_pure_dict(state), seed)
  return nnx.merge(graphdef, jax.device_put(values))


def _compute_dtype(name: str) -> jnp.dtype:
  allowed = ("float32", "bfloat16", "float16", "float64")
  if name not in allowed:
    raise ValueError(f"dtype={name!r} must be one of {', '.join(allowed)}")
  return jnp.dtype(name)
