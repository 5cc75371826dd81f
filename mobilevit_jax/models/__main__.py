"""Lists the nets: parameters, multiply-adds, published accuracy.

    mobilevit models mobilevit_s mobilevitv2_100

Parameters are counted with 1,000 classes, multiply-adds for one square image of
`--size` pixels. The published figures are others' on ImageNet-1k, none is ours.
"""

from collections.abc import Sequence
import sys

from mobilevit_jax import models
from mobilevit_jax import summary
from mobilevit_jax.command import arguments

# Top-1 in % at 256 px, one crop. The paper's Fig. 5(c); ml-cvnets' model zoo;
# the authors of v3 (arXiv 2209.15159 and their repository).
PUBLISHED: dict[str, tuple[str, str]] = {
  **{
    f"mobilevit_{size}": (top1, "arXiv 2110.02178")
    for size, top1 in (("xxs", "69.0"), ("xs", "74.8"), ("s", "78.4"))
  },
  **{
    f"mobilevitv2_{width}": (top1, "ml-cvnets")
    for width, top1 in (
      *(("050", "70.18"), ("075", "75.56"), ("100", "78.09")),
      *(("125", "79.65"), ("150", "80.38"), ("175", "80.84"), ("200", "81.17")),
    )
  },
  **{
    f"mobilevitv3_{name}": (top1, "arXiv 2209.15159")
    for name, top1 in (
      *(("xxs", "70.98"), ("xs", "76.7"), ("s", "79.3")),
      *(("xxs_l2", "70.23"), ("xs_l2", "76.10"), ("s_l2", "79.06")),
      *(("050", "72.33"), ("075", "76.55"), ("100", "78.64")),
    )
  },
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = arguments.models().parse_args(argv)
  try:
    names = [models.full_name(name) for name in args.names or models.VARIANTS]
    smallest = max(models.family_of(name).smallest for name in names)
    if args.size < smallest:
      raise ValueError(f"--size={args.size} must be at least {smallest}")
  except ValueError as error:
    print(f"models: {error}", file=sys.stderr)
    return 1
  print(f"{'name':<18}{'parameters':>12}{'MACs':>16}  top-1  published by")
  for name in names:
    # "auto" would trace both forms of a convolution, and count the
    # multiply-adds of both.
    model = models.abstract_model(name, depthwise="conv")
    layers = summary.summarize(model, args.size, args.size)
    parameters = sum(layer.params for layer in layers)
    macs = sum(layer.macs.total for layer in layers)
    top1, source = PUBLISHED[name]
    # A line at a time: each net takes a second to look through.
    line = f"{name:<18}{parameters:>12,}{macs:>16,}  {top1:>5}  {source}"
    print(line, flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
