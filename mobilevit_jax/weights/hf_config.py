"""The JSON that transformers wants beside weights."""

from collections.abc import Sequence
from typing import Any

from mobilevit_jax import models
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import mobilevit_v2


def documents(
  name: str, num_classes: int, labels: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
  """Documents by file name.

  Args:
    name: of the variant, as in `models.VARIANTS`.
    num_classes: outputs of the classifier.
    labels: class names; `class 0` and so on where there are none.

  Returns:
    `config.json` of a net for image classification, and
    `preprocessor_config.json` with the crop that Apple's weights were
    evaluated with, since the processor's defaults are another.
  """
  family = models.family_of(name)
  variant = family.variants[name]
  labels = labels or [f"class {index}" for index in range(num_classes)]
  bgr = "hf" in family.bgr
  config = {
    **_CONFIGS[family.name](variant),
    "image_size": 256,
    "patch_size": 2,
    "num_channels": 3,
    "hidden_act": "silu",
    "conv_kernel_size": 3,
    "output_stride": 32,
    "layer_norm_eps": 1e-5,
    "id2label": {str(index): label for index, label in enumerate(labels)},
    "label2id": {label: index for index, label in enumerate(labels)},
  }
  processor = {
    "image_processor_type": "MobileViTImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 288},
    "resample": _RESAMPLE[family.name],
    "do_center_crop": True,
    "crop_size": {"height": 256, "width": 256},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_flip_channel_order": bgr,
  }
  return {"config.json": config, "preprocessor_config.json": processor}


def _mobilevit(variant: mobilevit.Variant) -> dict[str, Any]:
  return {
    "architectures": ["MobileViTForImageClassification"],
    "model_type": "mobilevit",
    "hidden_sizes": list(variant.dims),
    "neck_hidden_sizes": [*variant.channels, 4 * variant.channels[-1]],
    "num_attention_heads": mobilevit.HEADS,
    "mlp_ratio": 2.0,
    "expand_ratio": float(variant.expansion),
    "qkv_bias": True,
    "hidden_dropout_prob": variant.dropout,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.1,
  }


def _mobilevitv2(variant: mobilevit_v2.Variant) -> dict[str, Any]:
  return {
    "architectures": ["MobileViTV2ForImageClassification"],
    "model_type": "mobilevitv2",
    "width_multiplier": variant.width,
    "n_attn_blocks": list(mobilevit_v2.DEPTHS),
    "base_attn_unit_dims": list(mobilevit_v2.VARIANTS["mobilevitv2_100"].dims),
    "expand_ratio": float(mobilevit_v2.EXPANSION),
    "mlp_ratio": 2.0,
    "ffn_multiplier": 2,
    "attn_dropout": 0.0,
    "ffn_dropout": 0.0,
    "classifier_dropout_prob": 0.0,
  }


# By the names of `models.FAMILIES`; PIL's numbers of bilinear and bicubic, that
# Apple evaluated the first and the second with.
_CONFIGS = {"mobilevit": _mobilevit, "mobilevitv2": _mobilevitv2}
_RESAMPLE = {"mobilevit": 2, "mobilevitv2": 3}
