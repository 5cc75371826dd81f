"""When a pod starves: arithmetic about one train step on many chips.

    python -m benchmarks scaling --variant=s --chip=v5e

Nothing is run: chips are data sheets, the rest are flags. `docs/scaling.md`
explains each number and names what is assumed.
"""

import argparse
import dataclasses

from mobilevit_jax import summary


@dataclasses.dataclass(frozen=True)
class Net:
  """What scaling needs to know of a model; `summary` counts the same."""

  params: int
  bn_layers: int
  bn_channels: int  # of all its BatchNorms together
  macs: int  # forward, one image of 256 px


NETS = {
  "xxs": Net(1_272_024, 32, 2_056, 407_364_096),
  "xs": Net(2_317_848, 32, 4_224, 1_025_911_808),
  "s": Net(5_578_632, 32, 6_128, 2_000_831_488),
}


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of TPU in its pod, by the vendor's figures.

  Attributes:
    kind: JAX's name of the device.
    link: bytes/s a chip can send in an all-reduce; the pod's "all-reduce
      bandwidth" over its chips, or half the bidirectional bandwidth.
    dims: of the torus.
    slice_chips: chips that share the fast network.
    host_chips: chips of a host, in slices of several hosts.
    host_cores: of such a host; a virtual one is a thread, half of a core.
  """

  kind: str
  link: float
  dims: int
  slice_chips: int
  host_chips: int
  host_cores: int


# Sources: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; virtual cores, 240,
# 112, 208 and 180, cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
CHIPS = {
  "v4": Chip("TPU v4", 1.1e15 / 4096, 3, 4096, 4, 120),
  "v5e": Chip("TPU v5e", 51.2e12 / 256, 2, 256, 4, 56),
  "v5p": Chip("TPU v5p", 600e9, 3, 6144, 4, 104),
  "v6e": Chip("TPU v6e", 102.4e12 / 256, 2, 256, 4, 90),
}


@dataclasses.dataclass(frozen=True)
class Row:
  """One number of chips."""

  chips: int
  images: float  # on a chip, in a step
  step: float  # seconds of arithmetic
  gradients: float  # seconds on the network
  batch_norm: float  # seconds on the network
  efficiency: float  # nothing overlaps
  images_per_second: float  # of the pod, where the input keeps up


@dataclasses.dataclass(frozen=True)
class Network:
  """What the chip's table doesn't say; see the flags."""

  chip: Chip
  hop: float  # seconds from a chip to its neighbour
  dcn_latency: float  # seconds of one exchange between slices
  nic: float  # bytes/s of a host

  def all_reduce(self, num_bytes: float, chips: int) -> float:
    """Seconds that `chips` chips need to sum `num_bytes` that each holds.

    Inside a slice rings send everything twice and the news crosses the torus
    there and back. Slices then exchange their sums through all their hosts.
    """
    if chips <= 1:
      return 0.0
    inside = min(chips, self.chip.slice_chips)
    # A torus of equal sides.
    side = inside ** (1 / self.chip.dims)
    hops = self.chip.dims * side / 2  # half-way round in each dimension
    seconds = 2 * hops * self.hop
    # A ring all-reduce sends 2 (n - 1) / n of the data over each link.
    seconds += 2 * num_bytes * (inside - 1) / inside / self.chip.link
    # Slices meet over the data-centre's network, all hosts at once.
    slices = -(-chips // self.chip.slice_chips)
    if slices > 1:
      hosts = self.chip.slice_chips / self.chip.host_chips
      share = 2 * num_bytes * (slices - 1) / slices / hosts
      seconds += self.dcn_latency + share / self.nic
    return seconds


def batch_norm_seconds(
  net: Net, network: Network, chips: int, bn_groups: int
) -> float:
  """Seconds that a step's BatchNorm statistics spend on the network.

  A group that lies on one chip talks to nobody until the end, where the
  running statistics are averaged in one go. A group on several chips sums
  means, variances and their gradients at every layer: four exchanges each.
  """
  floats = 2 * net.bn_channels  # mean and variance
  # Groups that lie on whole chips: the running statistics alone are averaged.
  if bn_groups % chips == 0:
    return network.all_reduce(4 * floats, chips)
  members = max(chips // bn_groups, 1)
  each = 4 * floats / net.bn_layers / 2  # one of the four, at a mean layer
  return 4 * net.bn_layers * network.all_reduce(each, members)


def scale(
  net: Net,
  network: Network,
  *,
  chips: int,
  images: float,
  chip_rate: float,
  bn_groups: int,
) -> Row:
  """One row: `images` on each of `chips`, which do `chip_rate` images/s."""
  step = images / chip_rate
  # float32 gradients: four bytes a parameter.
  gradients = network.all_reduce(4 * net.params, chips)
  batch_norm = batch_norm_seconds(net, network, chips, bn_groups)
  # No overlap: the pessimistic sum.
  total = step + gradients + batch_norm
  return Row(
    chips,
    images,
    step,
    gradients,
    batch_norm,
    step / total,
    chips * images / total,
  )


@dataclasses.dataclass(frozen=True)
class Input:
  """What one host can feed."""

  decode: float  # images/s by its cores
  read: float  # images/s by its network card

  @property
  def limit(self) -> float:
    """Images/s."""
    return min(self.decode, self.read)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the sub-command."""
  add = parser.add_argument
  add("--variant", default="s", choices=NETS)
  add("--chip", default="v5e", choices=CHIPS)
  add("--chips", default="8,64,256,1024,4096", help="how many, with commas")
  add("--global_batch", type=int, default=1024, help="the recipe's, at 256 px")
  add("--images_per_chip", type=int, default=128, help="a batch that grows")
  add("--bn_groups", type=int, default=8, help="1: of the whole batch")
  add("--mfu", type=float, default=0.13, help="of the chip's peak, assumed")
  add("--chip_rate", type=float, help="images/s of a chip, where measured")
  add("--decode_rate", type=float, default=550.0, help="images/s of a core")
  add("--image_bytes", type=float, default=115e3, help="of a JPEG")
  add("--host_cores", type=int, help="default: the chip's host")
  add("--nic_gbps", type=float, default=100.0, help="of a host, in Gbit/s")
  add("--hop_us", type=float, default=1.0, help="chip to chip, assumed")
  add("--dcn_us", type=float, default=100.0, help="slice to slice, assumed")


def main(args: argparse.Namespace) -> tuple[list[str], None]:
  """The tables."""
  return report(args), None


def report(args: argparse.Namespace) -> list[str]:
  """The lines that the command prints.

  Raises:
    ValueError: naming a flag that is not a positive number.
  """
  for name, value in vars(args).items():
    if isinstance(value, int | float) and value <= 0:
      raise ValueError(f"--{name}={value} must be above 0")
  try:
    counts = [int(word) for word in args.chips.split(",")]
  except ValueError:
    # Every problem before the first number.
    counts = []
  if not counts or min(counts) < 1:
    raise ValueError(f"--chips={args.chips} must be numbers, such as 8,256")
  net, chip = NETS[args.variant], CHIPS[args.chip]
  peak = summary.peak_flops(chip.kind) or 0.0
  # FLOP/s reached over FLOPs an image takes.
  rate = args.chip_rate or args.mfu * peak / summary.train_flops(net.macs, 1)
  nic = args.nic_gbps * 1e9 / 8
  network = Network(chip, args.hop_us * 1e-6, args.dcn_us * 1e-6, nic)
  cores = args.host_cores or chip.host_cores
  host = Input(cores * args.decode_rate, nic / args.image_bytes)

  def table(images_on: dict[int, float]) -> list[str]:
    return _table(
      [
        scale(
          net,
          network,
          chips=chips,
          # What the host can feed is shared by its chips.
          images=images,
          chip_rate=rate,
          bn_groups=args.bn_groups,
        )
        for chips, images in images_on.items()
      ],
      host.limit / chip.host_chips,
    )

  return [
    f"MobileViT-{args.variant.upper()} on TPU {args.chip}, {rate:,.0f} "
    "images/s a chip while it computes",
    f"a step moves {4 * net.params / 1e6:.1f} MB of gradients and "
    f"{8 * net.bn_channels / 1e3:.0f} kB of BatchNorm statistics "
    f"(bn_groups={args.bn_groups})",
    "",
    f"global batch of {args.global_batch}, as in the recipe",
    *table({chips: args.global_batch / chips for chips in counts}),
    "",
    f"{args.images_per_chip} images a chip, whatever their number",
    *table({chips: float(args.images_per_chip) for chips in counts}),
    "",
    *_input_lines(chip, host, rate, cores),
  ]


def _table(rows: list[Row], feed: float) -> list[str]:
  lines = [
    f"{'chips':>6} {'images':>7} {'compute':>9} {'gradients':>9} "
    f"{'BatchNorm':>9} {'efficiency':>10} {'images/s':>11}  limit",
    f"{'':>6} {'a chip':>7} {'ms':>9} {'ms':>9} {'ms':>9}",
  ]
  for row in rows:
    lines.append(
      f"{row.chips:>6} {row.images:>7.4g} {1e3 * row.step:>9.3f} "
      f"{1e3 * row.gradients:>9.3f} {1e3 * row.batch_norm:>9.3f} "
      f"{row.efficiency:>10.0%} {row.images_per_second:>11,.0f}  "
      f"{limit(row, feed)}"
    )
  return lines


def limit(row: Row, feed: float) -> str:
  """What holds this many chips back; `feed` is images/s for a chip."""
  if row.images < 1:
    return "batch: less than an image a chip"
  if row.images_per_second > feed * row.chips:
    return f"starves: input feeds {feed * row.chips:,.0f} images/s"
  if row.efficiency < 0.9:
    return "network"
  return "compute"


def _input_lines(chip: Chip, host: Input, rate: float, cores: int) -> list[str]:
  need = rate * chip.host_chips
  by = "decoding" if host.decode < host.read else "the network card"
  verdict = "starves" if need > host.limit else "feeds its chips"
  return [
    f"a host of {chip.host_chips} chips and {cores} cores decodes "
    f"{host.decode:,.0f} and reads {host.read:,.0f} images/s; its chips want "
    f"{need:,.0f}",
    f"so it {verdict}; {by} ends at {host.limit / chip.host_chips:,.0f} "
    f"images/s a chip, {need / host.decode * cores:,.0f} cores would do",
  ]
