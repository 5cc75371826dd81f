"""MobileViT-XXS on scikit-learn's handwritten digits, from scratch.

  python -m mobilevit_jax.main --config=configs/digits.py --workdir=runs/digits

To reach: EMA top-1 of at least 98.5 % on the 360 held-out images, in three
minutes on two cores. It needs no network: the images come with scikit-learn.
What it does not set is the paper's recipe, of `imagenet.py`.
"""

from typing import Any

from . import imagenet


def get_config() -> Any:
  """The configuration; `--config.FIELD=VALUE` sets a field."""
  config = imagenet.get_config("xxs")
  config.model.update(num_classes=10, bn_groups=1, dtype="float32")
  config.transform.update(
    crop_scale=(0.6, 1.0),
    crop_ratio=(0.8, 1.25),
    flip=0.0,  # a mirrored digit is another one
  )
  config.data.update(name="digits", eval_split="test", num_workers=0)
  config.plan.update(
    sizes=(32,), base_size=32, base_batch=48, groups=1, num_epochs=20
  )
  # Steps, not epochs: twenty epochs would be twenty steps of the rate.
  config.optim.update(final_lr=2e-5, warmup_steps=50, cosine_unit="step")
  # The paper's 5e-4 averages over thousands of steps; here are hundreds.
  config.optim.ema.update(momentum=0.02, warmup=True)
  config.eval.update(size=32, batch=120, every_epochs=5)
  config.checkpoint.update(every_steps=100, keep=2)
  config.log_every_steps = 20
  return config
