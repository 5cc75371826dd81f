"""The JSON that transformers wants beside weights."""

from collections.abc import Sequence
from typing import Any

from mobilevit_jax import models
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import mobilevit_v2


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
  variant = family.variants[name]
  labels = labels or [f"class {i}" for i in range(model.head.num_classes)]
  resize, crop = 288, 256  # Apple's sides before and after the crop, in pixels
  more: dict[str, Any] = {"output_stride": 32}
  own = _CONFIGS[family.name](variant)
  if models.head_of(model) == "deeplabv3":
    # The crop of Apple's segmenters (transformers' conversion script).
    resize, crop = 544, 512
    more = {
      # The width of `conv_1x1_exp` belongs to "neck_hidden_sizes" there.
      "architectures": [
        name.replace("ImageClassification", "SemanticSegmentation")
        for name in own["architectures"]
      ],
      "output_stride": model.head.output_stride,
      "aspp_out_channels": model.head.aspp_width,
      "atrous_rates": list(model.head.rates),
      "aspp_dropout_prob": 0.1,
      "semantic_loss_ignore_index": 255,
    }
  # Apple's weights of v1 were trained on BGR; transformers' processor turns the
  # channels, so that users give RGB.
  bgr = "hf" in family.bgr
  config = {
    **own,
    "image_size": crop,
    "patch_size": 2,
    "num_channels": 3,
    "hidden_act": "silu",
    "conv_kernel_size": 3,
    "layer_norm_eps": 1e-5,
    **more,
    "id2label": {str(index): label for index, label in enumerate(labels)},
    "label2id": {label: index for index, label in enumerate(labels)},
  }
  processor = {
    "image_processor_type": "MobileViTImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": resize},
    "resample": _RESAMPLE[family.name],
    "do_center_crop": True,
    "crop_size": {"height": crop, "width": crop},
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


# By the names of `models.FAMILIES`; PIL's numbers of bilinear and bicubic, as
# Apple evaluated.
_CONFIGS = {"mobilevit": _mobilevit, "mobilevitv2": _mobilevitv2}
_RESAMPLE = {"mobilevit": 2, "mobilevitv2": 3}
