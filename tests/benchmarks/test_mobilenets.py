"""The CNNs that MobileViT is measured against."""

import math

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from benchmarks import nets
from mobilevit_jax import summary

# torchvision's parameters, blocks, and blocks that add their input.
NETS = (
  ("mobilenetv2", 3_504_872, 17, 10),
  ("mobilenetv3", 5_483_032, 15, 10),
)


@pytest.mark.parametrize(("name", "params", "blocks", "residuals"), NETS)
def test_has_the_papers_layers(name, params, blocks, residuals):
  model = nets.abstract(name)
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(math.prod(leaf.shape) for leaf in leaves) == params
  graphdef, state = nnx.split(model)
  images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
  logits = jax.eval_shape(
    lambda state, images: nnx.merge(graphdef, state)(images), state, images
  )
  assert logits.shape == (2, 1000)
  backbone = model.backbone
  stages = [getattr(backbone, name) for name in backbone.LAYERS[1:]]
  found = [block for stage in stages for block in stage]
  assert len(found) == blocks
  assert sum(block.residual for block in found) == residuals
  strides = [block.depthwise.stride for block in found]
  assert backbone.stem.conv.stride * math.prod(strides) == 32


@pytest.mark.parametrize(
  ("name", "millions"),  # the papers say 300 and 219
  (("mobilenetv2", 301), ("mobilenetv3", 217)),
)
def test_has_the_papers_multiply_adds(name, millions):
  layers = summary.summarize(nets.abstract(name), 224, 224)
  assert round(sum(layer.macs.total for layer in layers) / 1e6) == millions
