"""MobileViT, v2 or v3 on your own images: from weights, or from scratch.

  python -m mobilevit_jax.main --config=configs/finetune.py:s \
    --workdir=runs/mine --config.weights.source=WEIGHTS \
    --config.data.name=folder --config.data.dir=PHOTOS

`finetune.py:VARIANT` starts from `config.weights.source`, anything that
`load_weights` reads, with a new classifier; without it the run is refused.
`finetune.py:VARIANT,scratch` needs no weights, and more epochs. A number sets
the image size in pixels, as in `finetune.py:xxs,scratch,96`; the default is
256.

Classes come from the data. Rates are for 1024 images and follow the square root
of the batch: the paper's 2e-3 would be 5e-4 at 64 (Malladi et al. 2022, arXiv
2205.10287). Here it is half of that from weights, and twice from scratch. What
isn't set here is the variant's recipe, of `imagenet.py`.
"""

from typing import Any

from ml_collections import config_dict

from . import imagenet


def get_config(arguments: str = "s") -> Any:
  """The configuration; `--config.FIELD=VALUE` sets a field.

  Args:
    arguments: `VARIANT[,scratch][,SIZE]`.
  """
  variant, *words = arguments.split(",")
  sizes = [int(word) for word in words if word.isdecimal()]
  scratch = "scratch" in words
  if len(words) != len(sizes) + scratch or len(sizes) > 1:
    raise ValueError(
      f"{arguments!r} must be VARIANT[,scratch][,SIZE], as xxs,scratch,96"
    )
  size = sizes[0] if sizes else 256
  # Everything that isn't set here is the variant's own recipe.
  config = imagenet.get_config(variant)
  with config.ignore_type():
    config.model.num_classes = config_dict.placeholder(int)  # the data's
  config.model.update(bn_groups=1, dtype="float32")
  # The classifier's shape follows the data's classes, so it starts anew.
  config.weights.reset = "classifier"
  config.task.update(mixup=0.0, cutmix=0.0)
  # Milder crops than ImageNet's, as sets are small and objects fill the image.
  config.transform.update(
    crop_scale=(0.25, 1.0),
    randaugment_ops=2,
    randaugment_magnitude=5.0,
    erase=0.0,
    resize_size=None,
  )
  config.data.update(name="folder", eval_split="val", check=True, num_workers=0)
  config.plan.update(
    sizes=(size,),
    base_size=size,
    base_batch=64,
    groups=1,
    batch_multiple=8,  # for as many devices
    num_epochs=30,
  )
  # Layer-wise decay: early layers hold what transfers, and move least (BEiT,
  # arXiv 2106.08254, has the same rule).
  config.optim.update(
    lr_batch=1024,
    init_lr=1e-5,
    peak_lr=1e-3,
    final_lr=1e-5,
    warmup_epochs=2.0,
    cosine_unit="step",
    weight_decay=0.05,
    layer_decay=0.8,
  )
  config.optim.ema.update(momentum=0.005, warmup=True)
  config.eval.update(size=size, batch=64)
  config.early_stop.patience = 10
  config.checkpoint.update(every_steps=200, keep=2)
  config.report = True
  config.log_every_steps = 20
  if scratch:
    _from_scratch(config)
  return config


def _from_scratch(config: Any) -> None:
  # From scratch there is nothing to preserve: one rate for all layers, and more
  # epochs.
  config.weights.reset = "none"
  config.transform.update(randaugment_ops=1, erase=0.25)
  config.plan.num_epochs = 75
  config.optim.update(
    init_lr=1e-4, peak_lr=4e-3, warmup_epochs=5.0, layer_decay=1.0
  )
  # Cut from a fifth more than `size`, rounded up: random crops enlarge what is
  # on a photograph (Touvron et al. 2019, arXiv 1906.06423).
  config.transform.resize_size = (config.eval.get_ref("size") * 6 + 4) // 5
