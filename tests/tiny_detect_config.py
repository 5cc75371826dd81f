"""detect.py with a net that compiles in seconds; see `tiny_config`."""

from typing import Any

import jax.numpy as jnp

from configs import detect
from mobilevit_jax import models
from mobilevit_jax.models import mobilevit
from tests import tiny


class Backbone(tiny.TinyBackbone):
  """Two maps, as SSDLite reads them."""

  def __init__(
    self,
    variant=None,
    *,
    dropout=None,
    output_stride=32,
    bn_groups=1,
    depthwise="auto",
    dtype=jnp.float32,
  ):
    super().__init__(
      variant,
      dropout=dropout,
      output_stride=output_stride,
      bn_groups=bn_groups,
      depthwise=depthwise,
      dtype=dtype,
    )
    self.channels = (8, 8)

  def features(self, images, train=False, rngs=None):
    x = self.down(self.stem(images, train), train)
    return {"stage4": x, "stage5": self.block(x[:, ::2, ::2], train, rngs)}


models.FAMILIES["tiny_detect"] = models.Family(
  name="tiny_detect",
  backbone=Backbone,
  variants={"tiny_detect": None},
  init=tiny.FAMILY.init,
  block=mobilevit.MobileViTBlock,
  bgr=(),
  smallest=32,
  patch_sizes=((2, 2),),
  reference="none",
)


def get_config() -> Any:
  """The configuration, for a folder as `tests.test_detect` writes one."""
  config = detect.get_config("xxs,folder,64")
  config.model.name = "tiny_detect"
  config.model.dropout = 0.0
  config.weights.reset = "none"
  config.transform.update(crop=False, photometric="none")
  config.data.name = "yolo_folder"
  config.plan.update(base_batch=8, num_steps=160)
  config.optim.update(peak_lr=0.02, warmup_steps=10)
  config.optim.ema.momentum = 0.1
  config.eval.update(batch=4, every_epochs=40)
  config.checkpoint.every_steps = 80
  config.log_every_steps = 10
  return config
