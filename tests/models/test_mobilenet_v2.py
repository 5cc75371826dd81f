"""The CNN that MobileViT is measured against."""

import math

from flax import nnx
import jax
import jax.numpy as jnp

from mobilevit_jax import summary
from mobilevit_jax.models import mobilenet_v2


def test_has_the_papers_multiply_adds():
  model = nnx.eval_shape(lambda: mobilenet_v2.MobileNetV2(depthwise="conv"))
  layers = summary.summarize(model, 224, 224)
  macs = sum(layer.macs.total for layer in layers)
  assert round(macs / 1e6) == 301  # the paper rounds to 300


def test_has_the_papers_parameters_and_strides():
  model = nnx.eval_shape(mobilenet_v2.MobileNetV2)
  params = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(math.prod(leaf.shape) for leaf in params) == 3_504_872
  graphdef, state = nnx.split(model)
  images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
  logits = jax.eval_shape(
    lambda state, images: nnx.merge(graphdef, state)(images), state, images
  )
  assert logits.shape == (2, 1000)
  blocks = [block for i in range(1, 6) for block in getattr(model, f"stage{i}")]
  assert len(blocks) == 17
  assert sum(block.residual for block in blocks) == 10
  strides = [block.depthwise.stride for block in blocks]
  assert model.stem.conv.stride * math.prod(strides) == 32
