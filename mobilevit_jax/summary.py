"""Parameters, multiply-adds and FLOPs: what a net needs, what a device can do.

    python -m mobilevit_jax.summary --variant=s --size=256

prints a net's layers. A multiply-add (MAC) is one multiplication with its
addition, of convolutions, dense layers and attention's two products; norms,
activations, pooling and the resize of odd maps are left out, as by PyTorch's
FlopCounter. Model FLOPs utilisation (MFU) of training is
`train_flops(macs, images) / step_seconds / (devices * peak_flops(kind))`.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math
import operator
import sys
from typing import Any

from flax import nnx
import jax
from jax.extend import core
import jax.numpy as jnp

from mobilevit_jax import models
from mobilevit_jax.command import arguments
from mobilevit_jax.run import stop


@dataclasses.dataclass(frozen=True)
class Macs:
  """Multiply-adds by kind."""

  conv: int = 0
  linear: int = 0
  attention: int = 0

  def __add__(self, other: "Macs") -> "Macs":
    own, others = dataclasses.astuple(self), dataclasses.astuple(other)
    return Macs(*map(operator.add, own, others))

  @property
  def total(self) -> int:
    """Of all kinds."""
    return self.conv + self.linear + self.attention


@dataclasses.dataclass(frozen=True)
class Layer:
  """One row of the table."""

  name: str
  shape: tuple[int, ...]
  params: int
  macs: Macs


def summarize(model: Any, height: int, width: int) -> list[Layer]:
  """The parts of a net for one image, in their order; nothing is computed.

  Args:
    model: from `create_model` or `abstract_model`, or another net that says
      its parts' paths in `layers`. Depthwise convolutions are counted where
      they are convolutions: `depthwise="conv"`.
    height: of the image, in pixels.
    width: of the image, in pixels.
  """
  graphdef, state = nnx.split(model)
  layers: list[Layer] = []

  def run(state: Any, images: jax.Array) -> Any:
    net = nnx.merge(graphdef, state)
    for path in model.layers:
      # `layers` has each part's path: its owner gets the stand-in.
      *parents, name = path.split("/")
      owner = functools.reduce(getattr, parents, net)
      title = path.removeprefix("backbone/").replace("/", ".")
      setattr(owner, name, _observe(getattr(owner, name), title, layers))
    return net(images)

  # Shapes alone: nothing is computed, whatever the size of the net.
  image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  jax.eval_shape(run, state, image)
  return layers


def _observe(part: Any, name: str, layers: list[Layer]) -> Any:
  """A stand-in for a part, or its blocks, that notes what passes through."""
  if isinstance(part, nnx.List):
    blocks = enumerate(part)
    # Static, as the stand-ins aren't modules that NNX could trace.
    return nnx.static([_observe(b, f"{name}.{i}", layers) for i, b in blocks])

  def observed(x: Any, *rest: Any) -> Any:
    # The part's own program, counted operator by operator.
    run = jax.make_jaxpr(lambda x: part(x, *rest), return_shape=True)
    jaxpr, out = run(x)
    params = jax.tree.leaves(nnx.state(part, nnx.Param))
    count = sum(math.prod(leaf.shape) for leaf in params)
    layers.append(Layer(name, out.shape, count, _count(jaxpr.jaxpr)))
    return part(x, *rest)

  return observed


def forward_macs(name: str, height: int, width: int, **fields: Any) -> int:
  """Multiply-adds of one image through the net; nothing is computed.

  Args:
    name: of the model, such as `"mobilevit_s"`.
    height: of the image, in pixels.
    width: of the image, in pixels.
    **fields: of the model, as for `models.create_model`.
  """
  model = models.abstract_model(name, **{**fields, "depthwise": "conv"})
  layers = summarize(model, height, width)
  return sum(layer.macs.total for layer in layers)


def _count(jaxpr: core.Jaxpr) -> Macs:
  """Multiply-adds of a jaxpr and those inside it."""
  total = Macs()
  for eqn in jaxpr.eqns:
    if eqn.params.get("name") == "_resize":
      continue  # JAX resizes by matrix products
    operands: list[Any] = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    if eqn.primitive.name == "conv_general_dilated":
      # Taps times input channels of the group, for each output.
      kernel = operands[1].shape
      # rhs_spec: which axis of the kernel is the output.
      out_axis = eqn.params["dimension_numbers"].rhs_spec[0]
      per_output = math.prod(kernel) // kernel[out_axis]
      total += Macs(conv=math.prod(operands[-1].shape) * per_output)
    elif eqn.primitive.name == "dot_general":
      # A batched product multiplies two activations, which only attention does
      # here; one without a batch has weights on one side.
      (contract, _), (batch, _) = eqn.params["dimension_numbers"]
      depth = math.prod(operands[0].shape[axis] for axis in contract)
      macs = math.prod(operands[-1].shape) * depth
      total += Macs(attention=macs) if batch else Macs(linear=macs)
    # Programs inside: jitted functions, scans, conditionals.
    inner = core.jaxprs_in_params(eqn.params)
    total = sum(map(_count, inner), total)
  return total


# Peak dense matrix FLOP/s of one JAX device: for bfloat16, and for float32 at
# JAX's default precision, which is one bfloat16 pass on TPU and TF32 on NVIDIA
# (none before Ampere). These are the vendors' figures. Where a TPU's two cores
# are two JAX devices (v2, v3, TPU7x), a device is half a chip.
# Sources: docs.cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}; the data
# sheets of V100, A100, H100, H200, HGX B200, L4 and L40S on nvidia.com, whose
# figures "with sparsity" are halved.
_PEAK: dict[str, tuple[float, float]] = {
  "TPU v2": (22.5e12, 22.5e12),
  "TPU v3": (61.5e12, 61.5e12),
  "TPU v4": (275e12, 275e12),
  "TPU v5 lite": (197e12, 197e12),
  "TPU v5e": (197e12, 197e12),
  "TPU v5": (459e12, 459e12),
  "TPU v5p": (459e12, 459e12),
  "TPU v6 lite": (918e12, 918e12),
  "TPU v6e": (918e12, 918e12),
  "TPU7x": (1153.5e12, 1153.5e12),
  "NVIDIA A100": (312e12, 156e12),
  "NVIDIA H100": (989.4e12, 494.7e12),
  "NVIDIA H100 PCIe": (756e12, 378e12),
  "NVIDIA H100 NVL": (835.5e12, 417.5e12),
  "NVIDIA H200": (989.4e12, 494.7e12),
  "NVIDIA H200 NVL": (835.5e12, 417.5e12),
  "NVIDIA B200": (2250e12, 1125e12),
  "NVIDIA L4": (121e12, 60.5e12),
  "NVIDIA L40S": (362e12, 183e12),
}


def peak_flops(device_kind: str, dtype: str = "bfloat16") -> float | None:
  """Dense matrix FLOP/s of one JAX device, or None where not known.

  Args:
    device_kind: `jax.devices()[0].device_kind`, such as `"TPU v4"` or
      `"NVIDIA A100-SXM4-40GB"`: what follows the name in the table is ignored.
    dtype: `"bfloat16"`, or `"float32"` at JAX's default matmul precision.
  """
  if dtype not in ("bfloat16", "float32"):
    return None
  names = [name for name in _PEAK if _starts_with_words(device_kind, name)]
  if not names:
    return None
  # The longest is the one that says most: "NVIDIA H100 PCIe" is no SXM board.
  bfloat16, float32 = _PEAK[max(names, key=len)]
  return bfloat16 if dtype == "bfloat16" else float32


def _starts_with_words(text: str, words: str) -> bool:
  """Whole words only: "NVIDIA L40S" is no "NVIDIA L4"."""
  rest = text.removeprefix(words)
  return rest != text and not rest[:1].isalnum()


def train_flops(macs: int, images: int) -> int:
  """FLOPs of forward and backward over `images`, by the usual count.

  A multiply-add is two, and the backward pass does the forward's work twice:
  once for the activations' gradients, once for the weights'. What is
  recomputed, norms, activations and the optimiser aren't counted.

  Args:
    macs: multiply-adds of one forward pass of one image; see
      `forward_macs`.
    images: in the batch.
  """
  return 6 * macs * images


def format_table(layers: Sequence[Layer]) -> str:
  """The layers and their sum, in columns."""
  params = sum(layer.params for layer in layers)
  macs = sum((layer.macs for layer in layers), Macs())
  rows = [("layer", "output", "parameters", "MACs")]
  for layer in layers:
    shape = " x ".join(str(n) for n in layer.shape[1:])
    counts = f"{layer.params:,}", f"{layer.macs.total:,}"
    rows.append((layer.name, shape, *counts))
  rows.append(("total", "", f"{params:,}", f"{macs.total:,}"))
  a, b, c, d = (max(map(len, column)) for column in zip(*rows, strict=True))
  lines = [
    f"{name:<{a}}  {shape:<{b}}  {count:>{c}}  {work:>{d}}"
    for name, shape, count, work in rows
  ]
  rule = "-" * len(lines[0])
  lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
  kinds = (
    f"MACs: convolutions {macs.conv:,}, linear {macs.linear:,}, "
    f"attention {macs.attention:,}"
  )
  return "\n".join([*lines, "", kinds])


@stop.in_one_line("summary", "it writes nothing")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = arguments.summary().parse_args(argv)
  try:
    name = models.full_name(args.variant)
    width = args.size if args.width is None else args.width
    smallest = models.family_of(name).smallest
    if min(args.size, width) < smallest:
      raise ValueError(
        f"--size={args.size}, --width={width} must be at least {smallest}"
      )
    model = models.abstract_model(
      name,
      num_classes=args.num_classes,
      output_stride=args.output_stride,
      depthwise="conv",
    )
    print(format_table(summarize(model, args.size, width)))
  except ValueError as error:
    print(f"summary: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
