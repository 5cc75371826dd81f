"""Nets, for writers of graphs: every family's blocks and every head.

The net is walked with its weights, and some exact rewrites are made on the
way: BatchNorm lies in the convolutions, and what the families' modules say. No
tensor has more than four axes. The tests compare what each format's engine
answers with the model in JAX.
"""

from mobilevit_jax.export import fold_bn
from mobilevit_jax.export import graph
from mobilevit_jax.export.blocks import heads
from mobilevit_jax.export.blocks import mobilevit
from mobilevit_jax.export.blocks import mobilevit_v2
from mobilevit_jax.export.blocks import mobilevit_v3
from mobilevit_jax.export.ops import Ops
from mobilevit_jax.export.ops import Tensor
from mobilevit_jax.models.net import Net

# Where the blocks of each of `models.FAMILIES`, and each of `models.HEADS`, are
# registered.
FAMILIES = {
  "mobilevit": mobilevit,
  "mobilevitv2": mobilevit_v2,
  "mobilevitv3": mobilevit_v3,
  "mobilevitv3_l2": mobilevit_v3,
  "mobilevitv3_v2": mobilevit_v3,
}
HEADS = {"classifier": heads, "deeplabv3": heads, "ssdlite": heads}


def write(net: Net, ops: Ops, x: Tensor, output: str) -> dict[str, Tensor]:
  """Writes a net.

  Args:
    net: with its weights, its BatchNorms folded or not.
    ops: writer of a format.
    x: map of RGB images in [0, 1], `[b, h, w, 3]`.
    output: one of the head's `OUTPUTS`, or `"features"`, the stages.

  Returns:
    The outputs by name, such as `{"logits": [b, num_classes]}`, or `"stage1"`
    to `"stage5"`.

  Raises:
    ExportError: for a layer that no format has.
  """
  # From here on there is no BatchNorm: one convolution with a bias in its
  # place.
  net = fold_bn.fold_batch_norms(net)
  maps = {}
  for part in net.backbone.LAYERS:
    x = graph.write(getattr(net.backbone, part), ops, x, part)
    maps[part] = x
  if output != "features":
    return heads.write(net.head, ops, maps, output)
  stages = net.backbone.LAYERS[1:]
  return {name: ops.rows(maps[name], f"{name}/out") for name in stages}
