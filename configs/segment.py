"""MobileViT with DeepLabv3: a class for each pixel, by the paper's recipe.

  python -m mobilevit_jax.main --config=configs/segment.py:s --workdir=WORKDIR \
    --config.data.dir=VOC2012 --config.weights.source=IMAGENET_WEIGHTS

mIoU to expect on VOC 2012 val, in percent (the paper's table 2; the released
weights, ml-cvnets v0.1's README). Those runs had COCO's images too, which
`config.data.name=coco_voc21` reads, in place of VOC's or before them:

    xxs  73.6   72.8
    xs   77.1   77.1
    s    79.1   79.3

No such run of this code has been made yet.

`segment.py:VARIANT[,voc|ade20k|folder][,scratch][,SIZE]`: `voc` is the default.
`ade20k` is the recipe of ml-cvnets main for 150 classes, with AdamW in place of
its SGD, so that its 38.5 % of S can't be expected. `folder` is for one's own
masks (`images/SPLIT/NAME.jpg`, `masks/SPLIT/NAME.png`, `classes.json`);
`folder,scratch` needs no weights. SIZE is the side of the crops in pixels: 512,
or 256 for `folder`.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from . import imagenet

_SETS = ("voc", "ade20k", "folder")


def get_config(arguments: str = "s") -> Any:
  """The configuration; `--config.FIELD=VALUE` sets a field.

  Args:
    arguments: `VARIANT[,voc|ade20k|folder][,scratch][,SIZE]`.
  """
  variant, *words = arguments.split(",")
  sizes = [int(word) for word in words if word.isdecimal()]
  sets = [word for word in words if word in _SETS]
  name = sets[0] if sets else "voc"
  scratch = "scratch" in words
  if (
    len(words) != len(sizes) + len(sets) + scratch
    or max(len(sizes), len(sets)) > 1
    or (scratch and name != "folder")
  ):
    raise ValueError(
      f"{arguments!r} must be VARIANT[,voc|ade20k|folder][,scratch][,SIZE], as "
      "xxs,folder,160; scratch goes with folder"
    )
  size = sizes[0] if sizes else 256 if name == "folder" else 512
  # As for detection: the classifier's recipe, and what differs.
  config = imagenet.get_config(variant)
  with config.ignore_type():
    config.model.num_classes = config_dict.placeholder(int)  # the data's
  config.model.update(head="deeplabv3", bn_groups=1, output_stride=16)
  # ConfigDict refuses new fields unless it is unlocked.
  with config.unlocked():
    config.model.update(
      aspp_width=256,
      aspp_dropout=0.1,
      aspp_dropout_kind="element",  # or "channel", as ml-cvnets since v0.2
      auxiliary=False,
      aligned=False,
    )
    # How images are evaluated: "stretch" as the paper's, "aspect" as ml-cvnets
    # since v0.2, "slide" by a window. The transform follows the task.
    config.task = ml_collections.ConfigDict(
      {
        "name": "segment",
        "protocol": "stretch",
        "label_smoothing": 0.0,
        "class_weights": "none",  # or "frequency"
        "auxiliary": 0.4,
        "dice": 0.0,
        "focal": 0.0,
        "window": size,
        "overlap": 0.5,
      }
    )
    config.transform = ml_collections.ConfigDict(
      {
        "short_side": (0.5, 2.0),  # of the crop
        "flip": 0.5,
        "long_side": config_dict.placeholder(float),
        "pad": False,
        "most_of_one": 1.0,
        "blur": 0.0,
        "photometric": False,
        "rotation": 0.0,
        "protocol": config.task.get_ref("protocol"),
        "multiple": config.model.get_ref("output_stride"),
        "max_pixels": 100_000_000,  # larger images are refused
      }
    )
  config.weights.reset = "head"
  config.data.update(
    name="voc_masks", train_split="train_aug", eval_split="val"
  )
  # 128 images in a batch, 50 epochs (appendix D); the head learns ten times as
  # fast as the pretrained backbone.
  config.plan.update(
    sizes=(size,), base_size=size, base_batch=128, groups=1, num_epochs=50
  )
  config.optim.update(
    init_lr=9e-5, peak_lr=9e-4, final_lr=1e-6, warmup_steps=500, head_rate=10.0
  )
  config.eval.update(size=size, batch=32)
  if name == "ade20k":
    _ade20k(config)
  if name == "folder":
    _folder(config)
  if scratch:
    _from_scratch(config)
  return config


def _ade20k(config: Any) -> None:
  # The right column of ml-cvnets' two DeepLabv3: main branch, aligned corners.
  config.model.update(
    output_stride=8,
    aspp_width=512,
    aspp_dropout_kind="channel",
    classifier_dropout=0.0,
    auxiliary=True,
    aligned=True,
  )
  config.task.protocol = "aspect"
  with config.ignore_type():
    config.transform.long_side = 2.0
  config.transform.update(
    short_side=(0.5, 1.5),
    pad=True,
    most_of_one=0.75,
    blur=0.5,
    photometric=True,
    rotation=10.0,
  )
  config.data.update(
    name="ade20k", train_split="training", eval_split="validation"
  )
  config.plan.update(base_batch=16, num_epochs=120)
  config.optim.update(weight_decay=1e-4, decay="no_norm_bias", clip_norm=10.0)
  config.optim.head_rate = 1.0


def _folder(config: Any) -> None:
  config.model.dtype = "float32"
  # A few hundred images: milder scales, and colours that vary.
  config.transform.update(short_side=(0.75, 2.0), photometric=True)
  config.data.update(
    name="masks", train_split="train", check=True, num_workers=0
  )
  config.plan.update(base_batch=16, batch_multiple=8)
  config.optim.update(
    # The paper's rates are for 128 images.
    lr_batch=128,
    warmup_epochs=2.0,
    cosine_unit="step",
  )
  config.optim.ema.update(momentum=0.005, warmup=True)
  config.eval.batch = 16
  config.early_stop.patience = 15
  config.checkpoint.update(every_steps=200, keep=2)
  config.log_every_steps = 20


def _from_scratch(config: Any) -> None:
  config.weights.reset = "none"
  config.task.dice = 1.0
  config.plan.num_epochs = 60
  # One rate for all: the backbone knows as little as the head.
  config.optim.update(init_lr=2e-4, peak_lr=2e-3, lr_batch=16, head_rate=1.0)
