"""MobileViT on ImageNet-1k by the paper's recipe, as ml-cvnets v0.1 ran it.

  python -m mobilevit_jax.main --config=configs/imagenet.py:xs --workdir=WORKDIR

Top-1 to expect from the EMA weights after 300 epochs, 256 px, single crop
(the paper's Fig. 5(c); the released weights; run to run +-0.3):

    xxs  69.0   69.0
    xs   74.8   74.7
    s    78.4   78.3

No ImageNet run of this code has been made yet.

The eight groups are the paper's GPUs: batches of 128 for each at 256 px, and
BatchNorm statistics for each by itself, whatever devices the run is on.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

_DROPOUT = {"xxs": 0.05, "xs": 0.1, "s": 0.1}


def get_config(variant: str = "s") -> Any:
  """The configuration of a variant; `--config.FIELD=VALUE` sets a field."""
  if variant not in _DROPOUT:
    raise ValueError(
      f"variant {variant!r} must be one of {', '.join(_DROPOUT)}"
    )
  return ml_collections.ConfigDict(
    {
      "seed": 0,
      "model": {
        "name": f"mobilevit_{variant}",
        "head": "classifier",
        "num_classes": 1000,
        "dropout": _DROPOUT[variant],
        "classifier_dropout": 0.1,
        "bn_groups": 8,
        "output_stride": 32,
        "depthwise": "auto",
        "dtype": "bfloat16",  # the paper's runs were in mixed float16
      },
      "weights": {  # to start from, or to evaluate
        "source": config_dict.placeholder(str),  # None: drawn from the seed
        "which": "auto",  # or "ema", "raw", "best", of a run's workdir
        "reset": "none",  # or "classifier", "head": what starts anew
      },
      "task": {
        "name": "classify",
        "label_smoothing": 0.1,
        "mixup": 0.0,  # alpha, as the next; both are off in the paper
        "cutmix": 0.0,
        "class_weights": "none",  # or "balanced"
      },
      "transform": {
        "crop_scale": (0.08, 1.0),
        "crop_ratio": (3 / 4, 4 / 3),
        "flip": 0.5,
        "randaugment_ops": 0,  # what follows is off in the paper
        "randaugment_magnitude": 9.0,  # of 10
        "color_jitter": 0.0,
        "erase": 0.0,  # a probability
        # For evaluation; or "hf", "timm", for weights from there.
        "preset": "cvnets",
        "resize_size": config_dict.placeholder(int),  # None: the preset's
      },
      "data": {
        "name": "imagenet2012",
        "dir": config_dict.placeholder(str),  # None: TFDS's own default
        "train_split": "train",
        "eval_split": "validation",
        "few_shot": config_dict.placeholder(int),  # images a class; None: all
        "check": False,  # read every image before training
        "on_bad_image": "error",  # or "replace", by another image
        "num_workers": 8,  # processes on each host; 0 for threads
        "prefetch_batches": 2,
      },
      "plan": {
        "sizes": (160, 192, 256, 288, 320),
        "base_size": 256,
        "base_batch": 128,
        "groups": 8,
        "rule": "cvnets_v01",
        "batch_multiple": 1,
        "num_epochs": 300,
        "num_steps": config_dict.placeholder(int),  # in place of epochs
      },
      "optim": {
        "init_lr": 2e-4,
        "peak_lr": 2e-3,
        "final_lr": 2e-4,
        "lr_batch": config_dict.placeholder(int),  # of these rates
        "warmup_steps": 3000,
        "warmup_epochs": config_dict.placeholder(float),  # in place of steps
        "cosine_unit": "epoch",  # or "step"
        "weight_decay": 0.01,
        "decay": "all",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "clip_norm": config_dict.placeholder(float),
        "accum_steps": 1,
        "layer_decay": 1.0,  # of the rate, at each stage from the last
        "head_rate": 1.0,  # of the rate, for the head's parts
        "freeze": "none",  # or "backbone": train the classifier alone
        "ema": {"momentum": 5e-4, "warmup": False},
      },
      "eval": {
        "size": 256,
        "batch": 1024,
        "every_epochs": 1,
      },
      "early_stop": {  # after so many evaluations without a better EMA top-1
        "patience": config_dict.placeholder(int),  # None: never
      },
      "report": False,  # an HTML page in WORKDIR/report at the end
      "checkpoint": {"every_steps": 1000, "keep": 3},
      "profile": {  # an XProf trace in WORKDIR/profile
        "start_step": config_dict.placeholder(int),  # None: no trace
        "num_steps": 5,
      },
      "log_every_steps": 100,
    }
  )
