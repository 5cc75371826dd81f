"""Prints a model's layers: output shape, parameters, multiply-adds.

    python -m mobilevit_jax.summary --variant=s --size=256

A multiply-add (MAC) is one multiplication with its addition, of convolutions,
dense layers and attention's two products; norms, activations, pooling and the
resize of odd maps are left out, as by PyTorch's FlopCounter.
"""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import math
import sys
from typing import Any

from flax import nnx
import jax
from jax.extend import core
import jax.numpy as jnp

from mobilevit_jax import models
from mobilevit_jax.models import mobilevit


@dataclasses.dataclass(frozen=True)
class Macs:
  """Multiply-adds by kind."""

  conv: int = 0
  linear: int = 0
  attention: int = 0

  def __add__(self, other: "Macs") -> "Macs":
    return Macs(
      self.conv + other.conv,
      self.linear + other.linear,
      self.attention + other.attention,
    )

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
  """The layers of a MobileViT for one image; nothing is computed.

  Args:
    model: from `create_model`, or `abstract_model`. Depthwise convolutions are
      counted where they are convolutions: `depthwise="conv"`.
    height: of the image, in pixels.
    width: of the image, in pixels.
  """
  x = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  layers = []
  for name, module in _modules(model):
    graphdef, state = nnx.split(module)

    def run(state: Any, x: jax.Array, graphdef: Any = graphdef) -> jax.Array:
      return nnx.merge(graphdef, state)(x)

    if name in ("hidden", "classifier"):
      x = jax.ShapeDtypeStruct((1, x.shape[-1]), x.dtype)  # the mean over h, w
    jaxpr, out = jax.make_jaxpr(run, return_shape=True)(state, x)
    params = jax.tree.leaves(nnx.state(module, nnx.Param))
    count = sum(math.prod(leaf.shape) for leaf in params)
    layers.append(Layer(name, out.shape, count, _count(jaxpr.jaxpr)))
    x = out
  return layers


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


def _modules(model: Any) -> Iterator[tuple[str, nnx.Module]]:
  yield "stem", model.stem
  for number in range(1, 6):
    for index, block in enumerate(getattr(model, f"stage{number}")):
      yield f"stage{number}.{index}", block
  yield "head", model.head
  if hasattr(model, "hidden"):  # MobileNetV3's
    yield "hidden", model.hidden
  yield "classifier", model.classifier


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
      out_axis = eqn.params["dimension_numbers"].rhs_spec[0]
      per_output = math.prod(kernel) // kernel[out_axis]
      total += Macs(conv=math.prod(operands[-1].shape) * per_output)
    elif eqn.primitive.name == "dot_general":
      (contract, _), (batch, _) = eqn.params["dimension_numbers"]
      depth = math.prod(operands[0].shape[axis] for axis in contract)
      macs = math.prod(operands[-1].shape) * depth
      total += Macs(attention=macs) if batch else Macs(linear=macs)
    for value in eqn.params.values():
      if isinstance(value, core.ClosedJaxpr):
        total += _count(value.jaxpr)
      elif isinstance(value, core.Jaxpr):
        total += _count(value)
  return total


def format_table(layers: Sequence[Layer]) -> str:
  """The layers and their sum, in columns."""
  params = sum(layer.params for layer in layers)
  macs = sum((layer.macs for layer in layers), Macs())
  rows = [("layer", "output", "parameters", "MACs")]
  rows += [
    (
      layer.name,
      " x ".join(str(n) for n in layer.shape[1:]),
      f"{layer.params:,}",
      f"{layer.macs.total:,}",
    )
    for layer in layers
  ]
  rows.append(("total", "", f"{params:,}", f"{macs.total:,}"))
  widths = [max(len(row[column]) for row in rows) for column in range(4)]
  lines = [
    f"{name:<{widths[0]}}  {shape:<{widths[1]}}  "
    f"{count:>{widths[2]}}  {work:>{widths[3]}}"
    for name, shape, count, work in rows
  ]
  rule = "-" * len(lines[0])
  lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
  kinds = (
    f"MACs: convolutions {macs.conv:,}, linear {macs.linear:,}, "
    f"attention {macs.attention:,}"
  )
  return "\n".join([*lines, "", kinds])


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog="python -m mobilevit_jax.summary",
    description="Prints a MobileViT's layers, parameters and multiply-adds.",
  )
  parser.add_argument("--variant", default="s", help="xxs, xs or s")
  parser.add_argument("--size", type=int, default=256, help="height in pixels")
  parser.add_argument("--width", type=int, help="where it isn't the height")
  parser.add_argument("--num_classes", type=int, default=1000)
  parser.add_argument("--output_stride", type=int, default=32)
  args = parser.parse_args(argv)
  try:
    model = models.abstract_model(
      f"mobilevit_{args.variant.removeprefix('mobilevit_')}",
      num_classes=args.num_classes,
      output_stride=args.output_stride,
      depthwise="conv",
    )
    width = args.size if args.width is None else args.width
    smallest = mobilevit.MIN_IMAGE_SIZE
    if min(args.size, width) < smallest:
      raise ValueError(
        f"--size={args.size}, --width={width} must be at least {smallest}"
      )
    print(format_table(summarize(model, args.size, width)))
  except ValueError as error:
    print(f"summary: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
