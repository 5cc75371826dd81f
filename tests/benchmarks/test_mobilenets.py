"""The CNNs that MobileViT is measured against."""

import math

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from benchmarks import mobilenet_v2
from benchmarks import mobilenet_v3
from mobilevit_jax import summary

# torchvision's parameters, blocks, and blocks that add their input.
NETS = (
  (mobilenet_v2.MobileNetV2, 3_504_872, 17, 10),
  (mobilenet_v3.MobileNetV3, 5_483_032, 15, 10),
)


@pytest.mark.parametrize(("net", "params", "blocks", "residuals"), NETS)
def test_has_the_papers_layers(net, params, blocks, residuals):
  model = nnx.eval_shape(net)
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(math.prod(leaf.shape) for leaf in leaves) == params
  graphdef, state = nnx.split(model)
  images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
  logits = jax.eval_shape(
    lambda state, images: nnx.merge(graphdef, state)(images), state, images
  )
  assert logits.shape == (2, 1000)
  found = [block for i in range(1, 6) for block in getattr(model, f"stage{i}")]
  assert len(found) == blocks
  assert sum(block.residual for block in found) == residuals
  strides = [block.depthwise.stride for block in found]
  assert model.stem.conv.stride * math.prod(strides) == 32


@pytest.mark.parametrize(
  ("net", "millions"),  # the papers say 300 and 219
  ((mobilenet_v2.MobileNetV2, 301), (mobilenet_v3.MobileNetV3, 217)),
)
def test_has_the_papers_multiply_adds(net, millions):
  model = nnx.eval_shape(lambda: net(depthwise="conv"))
  layers = summary.summarize(model, 224, 224)
  assert round(sum(layer.macs.total for layer in layers) / 1e6) == millions
