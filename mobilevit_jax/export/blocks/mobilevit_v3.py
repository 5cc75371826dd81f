"""MobileViTv3's graphs; see `models.mobilevit_v3`."""

import numpy as np

from mobilevit_jax.export import graph
from mobilevit_jax.export.blocks import mobilevit as blocks_of_v1
from mobilevit_jax.export.blocks import mobilevit_v2 as blocks_of_v2
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models import mobilevit_v3


@graph.write.register
def _block_of_v1(
  module: mobilevit_v3.BlockOfV1, ops: Ops, x: Tensor, name: str
) -> Tensor:
  y = graph.write(module.local_rep, ops, x, f"{name}/local_rep")
  z = blocks_of_v1.attend(module, ops, y, name)
  # The local features go to two places, and only one of them wants them
  # without their mean. So the fusion does their 1x1 convolution by itself.
  expand = graph.array(module.expand.kernel)[0, 0]
  kernel = graph.array(module.fusion.conv.kernel)[0, 0]
  local, rest = np.split(kernel, [expand.shape[-1]])
  y = ops.conv(
    ops.concat(y, z, f"{name}/concat"),
    np.concatenate([expand @ local, rest])[None, None],
    graph.array(module.fusion.norm.bias),
    f"{name}/fusion/conv",
  )
  y = ops.silu(y, f"{name}/fusion/silu")
  return ops.add(x, y, f"{name}/residual")


@graph.write.register
def _block_of_v2(
  module: mobilevit_v3.BlockOfV2, ops: Ops, x: Tensor, name: str
) -> Tensor:
  x = blocks_of_v2.even_size(ops, x, name)
  y = graph.write(module.local_rep, ops, x, f"{name}/local_rep")
  y = graph.write(module.expand, ops, y, f"{name}/expand")
  z = blocks_of_v2.attend(module, ops, y, name)
  y = ops.concat(z, y, f"{name}/concat")
  y = blocks_of_v2.project(module, ops, y, name)
  return ops.add(x, y, f"{name}/residual")
