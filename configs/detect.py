"""Object detection: MobileViT with SSDLite, as ml-cvnets v0.1 trained it.

  python -m mobilevit_jax.main --config=configs/detect.py:xxs,coco \
    --workdir=runs/coco --config.weights.source=CLASSIFIER

`detect.py:VARIANT[,coco|voc|folder][,scratch][,SIZE]`. `coco` is the paper's
recipe (4.2.1 and appendix D) on TFDS's coco/2017, `voc` the same on voc/2007,
`folder` a shorter one for sets of your own: `config.data.name` is `coco_json`,
`voc_folder` or `yolo_folder`, and `config.data.dir` the folder;
`folder,scratch` needs no weights. The default is coco at 320 pixels.
`config.weights.source` is a classifier, whose backbone is taken; for a detector
set `config.weights.reset` to `classifier`, or to `none`.

mAP to expect on COCO's val2017 (XXS and the second column: ml-cvnets' README;
the first: the paper's Table 1):

    xxs      -   19.9
    xs    24.8   24.8
    s     27.7   27.9

No run on COCO of this code has been made yet.

The paper divides the loss by the positives of each of its four GPUs, as
`task.loss_groups` does; its BatchNorm is synchronised, so `bn_groups` is 1.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from . import imagenet

# Name in TFDS, and the splits to train on and to judge by.
_SETS = {
  "coco": ("coco/2017", "train", "validation"),
  "voc": ("voc/2007", "train+validation", "test"),
  "folder": ("coco_json", "train", "val"),
}


def get_config(arguments: str = "s") -> Any:
  """The configuration; `--config.FIELD=VALUE` sets a field.

  Args:
    arguments: `VARIANT[,coco|voc|folder][,scratch][,SIZE]`.
  """
  variant, *words = arguments.split(",")
  sizes = [int(word) for word in words if word.isdecimal()]
  sets = [word for word in words if word in _SETS]
  which = sets[0] if sets else "coco"
  scratch = "scratch" in words
  if (
    len(words) != len(sizes) + len(sets) + scratch
    # The recipe's backbone and optimiser are the classifier's; what differs
    # follows.
    or max(len(sizes), len(sets)) > 1
    or (scratch and which != "folder")
    # Head and statistics: BatchNorm is synchronised in the paper's detectors.
  ):
    raise ValueError(
      f"{arguments!r} must be VARIANT[,{'|'.join(_SETS)}][,scratch][,SIZE], "
      "as xxs,voc; scratch goes with folder"
    )
  size = sizes[0] if sizes else 320
  config = imagenet.get_config(variant)
  with config.ignore_type():
    config.model.num_classes = config_dict.placeholder(int)  # the data's
  del config.model.classifier_dropout
  config.model.update(head="ssdlite", bn_groups=1)
  config.weights.reset = "head"
  config.task = ml_collections.ConfigDict(
    {
      "name": "detect",
      "label_smoothing": 0.0,
      "loss_groups": 4,  # the paper's GPUs
      "threshold": 0.01,
      "per_class": 400,
      "nms_iou": 0.5,
      "most": 200,
    }
  )
  config.transform = ml_collections.ConfigDict(
    {
      "crop": True,
      "min_crop": 0,  # pixels; 100 on ml-cvnets' main branch
      "photometric": "v01",  # or "main", "none"
      "flip": 0.5,
      "most_boxes": 100,
      "bad_boxes": "clip",  # or "error"
      "max_pixels": 100_000_000,  # larger images are refused
    }
  )
  name, train, held_out = _SETS[which]
  config.data.update(name=name, train_split=train, eval_split=held_out)
  # 4 GPUs with 32 images each (appendix D).
  config.plan.update(
    sizes=(size,), base_size=size, base_batch=32, groups=4, num_epochs=200
  )
  config.optim.update(
    # 9e-5 to 9e-4 in 500 steps; ml-cvnets' configuration then falls to 1e-6,
    # the paper's text says 9e-5.
    init_lr=9e-5,
    peak_lr=9e-4,
    final_lr=1e-6,
    warmup_steps=500,
  )
  config.eval.update(size=size, batch=64, every_epochs=5)
  if which == "folder":
    _own_images(config)
  if scratch:
    _from_scratch(config)
  return config


def _own_images(config: Any) -> None:
  # One device: one group, float32, and wrong boxes are an error, since one's
  # own annotations can be mended.
  """Hundreds of images on one device, for an hour rather than for days."""
  config.model.dtype = "float32"
  config.task.loss_groups = 1
  config.transform.bad_boxes = "error"
  config.data.num_workers = 0
  config.plan.update(base_batch=32, groups=1, num_epochs=100)
  # The paper's average over thousands of steps remembers too much of a short
  # run.
  config.optim.update(cosine_unit="step", warmup_steps=100)
  config.optim.ema.update(momentum=0.005, warmup=True)
  config.eval.update(batch=32, every_epochs=5)
  config.checkpoint.update(every_steps=200, keep=2)
  config.log_every_steps = 20


def _from_scratch(config: Any) -> None:
  # A small batch gives more steps, which random weights need.
  config.weights.reset = "none"
  config.plan.base_batch = 8
  config.optim.update(init_lr=1e-4, peak_lr=1e-3, lr_batch=8, warmup_steps=200)
