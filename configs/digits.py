"""MobileViT-XXS on scikit-learn's handwritten digits, from scratch.

    python -m mobilevit_jax.main --config=configs/digits.py --workdir=runs/digits

To reach: EMA top-1 of at least 98.5 % on the 360 held-out images, in three
minutes on two cores. It needs no network: the images come with scikit-learn.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The configuration; every field can be set by `--config.FIELD=VALUE`."""
  return ml_collections.ConfigDict({
    "seed": 0,
    "model": {
      "name": "mobilevit_xxs",
      "num_classes": 10,
      "dropout": 0.05,
      "classifier_dropout": 0.1,
      "bn_groups": 1,
      "output_stride": 32,
      "depthwise": "auto",
      "dtype": "float32",
    },
    "data": {
      "name": "digits",
      "dir": config_dict.placeholder(str),
      "train_split": "train",
      "eval_split": "test",
      "crop_scale": (0.6, 1.0),
      "crop_ratio": (0.8, 1.25),
      "flip": 0.0,  # a mirrored digit is another one
      "num_workers": 0,
      "prefetch_batches": 2,
    },
    "plan": {
      "sizes": (32,),
      "base_size": 32,
      "base_batch": 64,
      "groups": 1,
      "rule": "cvnets_v01",
      "batch_multiple": 1,
      "num_epochs": 20,
      "num_steps": config_dict.placeholder(int),
    },
    "optim": {
      "schedule": {
        "init_lr": 2e-4,
        "peak_lr": 2e-3,
        "final_lr": 2e-5,
        "warmup_steps": 50,
        "unit": "step",
      },
      "weight_decay": 0.01,
      "decay": "all",
      "b1": 0.9,
      "b2": 0.999,
      "eps": 1e-8,
      "clip_norm": config_dict.placeholder(float),
      "accum_steps": 1,
      "label_smoothing": 0.1,
      # The paper's 5e-4 averages over thousands of steps; there are hundreds.
      "ema": {"momentum": 0.02, "warmup": True},
    },
    "eval": {
      "size": 32,
      "resize_size": config_dict.placeholder(int),
      "batch": 120,
      "every_epochs": 5,
    },
    "checkpoint": {"every_steps": 100, "keep": 2},
    "log_every_steps": 20,
  })
