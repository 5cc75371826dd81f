"""The JSON that transformers wants beside weights."""

from collections.abc import Sequence
from typing import Any

from mobilevit_jax import models
from mobilevit_jax.models import mobilevit


def documents(
  name: str, model: models.Net, labels: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
  """Documents by file name.

  Args:
    name: of the variant, as in `models.VARIANTS`.
    model: the net, which may be abstract.
    labels: class names; `class 0` and so on where there are none.

  Returns:
    `config.json` of transformers' net with that head, and
    `preprocessor_config.json` with the crop that Apple's weights were
    evaluated with, since the processor's defaults are another.
  """
  family = models.family_of(name)
  of_head, resize, crop = _HEADS[models.head_of(model)](model.head)
  labels = labels or [f"class {i}" for i in range(model.head.num_classes)]
  config = {
    **_CONFIGS[family.name](family.variants[name]),
    **of_head,
    "image_size": crop,
    "id2label": {str(index): label for index, label in enumerate(labels)},
    "label2id": {label: index for index, label in enumerate(labels)},
  }
  processor = {
    "image_processor_type": "MobileViTImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": resize},
    "resample": 2,  # bilinear
    "do_center_crop": True,
    "crop_size": {"height": crop, "width": crop},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_flip_channel_order": True,
  }
  return {"config.json": config, "preprocessor_config.json": processor}


def _mobilevit(variant: mobilevit.Variant) -> dict[str, Any]:
  return {
    "model_type": "mobilevit",
    "hidden_sizes": list(variant.dims),
    "neck_hidden_sizes": [*variant.channels, 4 * variant.channels[-1]],
    "num_attention_heads": mobilevit.HEADS,
    "mlp_ratio": 2.0,
    "expand_ratio": float(variant.expansion),
    "hidden_act": "silu",
    "conv_kernel_size": 3,
    "patch_size": 2,
    "num_channels": 3,
    "layer_norm_eps": 1e-5,
    "qkv_bias": True,
    "hidden_dropout_prob": variant.dropout,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.1,
  }


def _classifier(head: Any) -> tuple[dict[str, Any], int, int]:
  """Fields, and the sides of an image before and after the crop, in pixels."""
  del head
  name = "MobileViTForImageClassification"
  return {"architectures": [name], "output_stride": 32}, 288, 256


def _deeplabv3(head: Any) -> tuple[dict[str, Any], int, int]:
  fields = {
    "architectures": ["MobileViTForSemanticSegmentation"],
    "output_stride": head.output_stride,
    "aspp_out_channels": head.aspp_width,
    "atrous_rates": list(head.rates),
    "aspp_dropout_prob": 0.1,
    "semantic_loss_ignore_index": 255,
  }
  return fields, 544, 512


_CONFIGS = {"mobilevit": _mobilevit}  # by the names of `models.FAMILIES`
# By the names of `models.HEADS`.
_HEADS = {"classifier": _classifier, "deeplabv3": _deeplabv3}
