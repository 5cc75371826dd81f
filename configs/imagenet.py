"""MobileViT, v2 and v3 on ImageNet-1k by their papers' recipes.

  python -m mobilevit_jax.main --config=configs/imagenet.py:xs --workdir=WORKDIR
  python -m mobilevit_jax.main --config=configs/imagenet.py:v2_100 \
    --workdir=WORKDIR
  python -m mobilevit_jax.main --config=configs/imagenet.py:v2_100,384 \
    --workdir=WORKDIR --config.weights.source=WEIGHTS

Top-1 to expect from the EMA weights after 300 epochs, 256 px, single crop
(MobileViT: the paper's Fig. 5(c), and the released weights; run to run +-0.3):

    xxs  69.0   69.0
    xs   74.8   74.7
    s    78.4   78.3

MobileViTv2 by ml-cvnets' model zoo at 256 px, and after ten more epochs at 384:

    v2_050  70.18  72.14        v2_150  80.38  81.50
    v2_075  75.56  76.98        v2_175  80.84  82.04
    v2_100  78.09  79.68        v2_200  81.17  82.17
    v2_125  79.65  80.94

MobileViTv3 by its authors alone (arXiv 2209.15159 and its repository):

    v3_xxs  70.98    v3_xxs_l2  70.23    v3_050  72.33
    v3_xs   76.7     v3_xs_l2   76.10    v3_075  76.55
    v3_s    79.3     v3_s_l2    79.06    v3_100  78.64

No ImageNet run of this code has been made yet, of any of them.

MobileViT and v3's first two columns: ml-cvnets v0.1's recipe (MobileViTv3's
files say smaller batches for it; the paper's text says 384 images). v2 and v3's
last column: ml-cvnets v0.2's, with the learning rate and the decay that v2 has
for the width (whether v3 was trained with them is not stated). What of it is
different here: random crops are scaled bilinearly, not bicubically, and erased
boxes hold noise, not black.

The eight groups are the paper's GPUs: batches of 128 for each at 256 px, and
BatchNorm statistics for each by itself, whatever devices the run is on.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

# The paper's dropout inside the transformer blocks (ml-cvnets v0.1's YAML).
_DROPOUT = {"xxs": 0.05, "xs": 0.1, "s": 0.1}
# By width: highest learning rate and weight decay.
_V2 = {
  "050": (0.0090, 0.004),
  "075": (0.0090, 0.008),
  "100": (0.0075, 0.013),
  "125": (0.0049, 0.020),
  "150": (0.0035, 0.029),
  "175": (0.0026, 0.039),
  "200": (0.0020, 0.050),
}
VARIANTS = (
  *_DROPOUT,
  *(f"v2_{width}" for width in _V2),
  *(f"v3_{size}{depth}" for size in _DROPOUT for depth in ("", "_l2")),
  *(f"v3_{width}" for width in ("050", "075", "100")),
)


def get_config(arguments: str = "s") -> Any:
  """The configuration; `--config.FIELD=VALUE` sets a field.

  Args:
    arguments: `VARIANT`, or for v2 and v3's last three `VARIANT,384`: ten
      epochs at 384 px, from `config.weights.source`.
  """
  variant, *words = arguments.split(",")
  if variant not in VARIANTS:
    raise ValueError(
      f"variant {variant!r} must be one of {', '.join(VARIANTS)}"
    )
  size = variant.removesuffix("_l2").rpartition("_")[-1]
  if words not in ([], ["384"]) or (words and size not in _V2):
    raise ValueError(
      f"{arguments!r} must be VARIANT, or VARIANT,384 for v2_050 and the like"
    )
  full = f"mobilevit{'' if variant.startswith('v') else '_'}{variant}"
  # Variants are named as in `models.VARIANTS`, without the family's prefix.
  config = _recipe_of_v1(full, _DROPOUT.get(size, 0.0))
  if size in _V2:
    _recipe_of_v2(config, *_V2[size])
  if words:
    _at_384(config)
  return config


def _recipe_of_v2(config: Any, peak_lr: float, weight_decay: float) -> None:
  # ml-cvnets v0.2, `config/classification/imagenet/mobilevit_v2.yaml`.
  config.model.classifier_dropout = 0.0
  config.task.update(mixup=0.2, cutmix=1.0, mix_each="batch")
  config.transform.update(
    # torchvision's 9, of 30: theirs are spread over as many bins.
    randaugment_ops=2,
    randaugment_magnitude=3.0,
    erase=0.25,
    preset="timm",  # Pillow's bicubic, from 288 to 256
    resize_size=288,
  )
  config.plan.sizes = (256,)
  config.optim.update(
    init_lr=1e-6,
    peak_lr=peak_lr,
    final_lr=peak_lr / 10,
    warmup_steps=20_000,
    weight_decay=weight_decay,
    decay="no_norm_bias",
    clip_norm=10.0,
  )


# ml-cvnets' finetuning at 384 px: SGD at a constant rate, weak augmentation.
def _at_384(config: Any) -> None:
  config.task.update(mixup=0.0, cutmix=0.0)
  config.transform.update(randaugment_ops=0, erase=0.0, resize_size=384)
  config.plan.update(sizes=(384,), base_size=384, base_batch=16, num_epochs=10)
  config.optim.update(
    name="sgd",
    init_lr=1e-3,
    peak_lr=1e-3,
    final_lr=1e-3,
    warmup_steps=0,
    weight_decay=4e-5,
  )
  config.optim.ema.momentum = 5e-5
  config.eval.size = 384


def _recipe_of_v1(name: str, dropout: float) -> Any:
  return ml_collections.ConfigDict(
    {
      "seed": 0,
      "model": {
        "name": name,
        "head": "classifier",
        "num_classes": 1000,
        "dropout": dropout,
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
        "mix_each": "image",  # or "batch"
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
        "max_pixels": 100_000_000,  # larger images are refused
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
        "name": "adamw",  # or "sgd"
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
        "momentum": 0.9,  # of "sgd" alone
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
      "tracker": "none",  # "wandb": Weights & Biases gets the numbers too
    }
  )
