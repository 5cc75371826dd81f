"""The arithmetic of `benchmark scaling`, against figures worked out by hand."""

import argparse
import math

from flax import nnx
import jax
import pytest

from benchmarks import __main__ as command
from benchmarks import scaling
from mobilevit_jax import models
from mobilevit_jax import summary
from mobilevit_jax.models import mobilevit

FLAT = scaling.Chip("TPU v5e", 100e9, 2, 256, 4, 100)
NETWORK = scaling.Network(FLAT, hop=1e-6, dcn_latency=1e-3, nic=10e9)
NET = scaling.Net(params=1000, bn_layers=10, bn_channels=100, macs=10**9)


@pytest.mark.parametrize("variant", scaling.NETS)
def test_nets_are_the_models(variant):
  net, name = scaling.NETS[variant], f"mobilevit_{variant}"
  model = models.abstract_model(name)
  params = jax.tree.leaves(nnx.state(model, nnx.Param))
  stats = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
  assert net.params == sum(math.prod(leaf.shape) for leaf in params)
  assert net.bn_layers == len(stats) / 2
  assert net.bn_channels == sum(math.prod(leaf.shape) for leaf in stats) / 2
  assert net.macs == summary.forward_macs(name, 256, 256)


def test_every_net_of_the_paper_is_there():
  nets = [f"mobilevit_{name}" for name in scaling.NETS]
  assert nets == [*mobilevit.VARIANTS]


def test_all_reduce_in_a_slice():
  # 16 x 16: 8 hops along each side, there and back, and 2 GB but for 1 / 256.
  expected = 2 * 2 * 8 * 1e-6 + 2 * 1e9 * 255 / 256 / 100e9
  assert NETWORK.all_reduce(1e9, 256) == pytest.approx(expected)
  assert NETWORK.all_reduce(1e9, 1) == 0


def test_all_reduce_over_slices_adds_the_hosts_network():
  # Four slices of 64 hosts, each of which sends a 64th of 1.5 GB.
  inside = NETWORK.all_reduce(1e9, 256)
  outside = 1e-3 + 2 * 1e9 * 3 / 4 / 64 / 10e9
  assert NETWORK.all_reduce(1e9, 1024) == pytest.approx(inside + outside)


def test_batch_norm_by_groups():
  # Alone on its chip a group only takes part in averaging 200 floats.
  for chips in (2, 4, 8):
    assert scaling.batch_norm_seconds(
      NET, NETWORK, chips, 8
    ) == NETWORK.all_reduce(800, chips)
  # Over all chips: forty exchanges of ten floats.
  assert scaling.batch_norm_seconds(NET, NETWORK, 64, 1) == pytest.approx(
    40 * NETWORK.all_reduce(40, 64)
  )
  # Eight groups on 64 chips: each speaks among its own eight.
  assert scaling.batch_norm_seconds(NET, NETWORK, 64, 8) == pytest.approx(
    40 * NETWORK.all_reduce(40, 8)
  )
  assert scaling.batch_norm_seconds(NET, NETWORK, 1, 1) == 0


def _row(chips, images, **kwargs):
  rest = {"chip_rate": 100.0, "bn_groups": 8, **kwargs}
  return scaling.scale(NET, NETWORK, chips=chips, images=images, **rest)


def test_row():
  row = _row(64, 10)
  assert row.step == 0.1
  total = row.step + row.gradients + row.batch_norm
  assert row.efficiency == pytest.approx(0.1 / total)
  assert row.images_per_second == pytest.approx(640 / total)
  assert _row(1, 10).efficiency == 1


@pytest.mark.parametrize(
  ("row", "feed", "expected"),
  [
    (_row(8, 10), 1e9, "compute"),
    (_row(8, 10), 50.0, "starves: input feeds 400 images/s"),
    (_row(4096, 0.25), 1e9, "batch: less than an image a chip"),
    (_row(64, 1, chip_rate=1e5), 1e9, "network"),
  ],
)
def test_what_holds_it_back(row, feed, expected):
  assert scaling.limit(row, feed) == expected


def _report(*flags):
  parser = argparse.ArgumentParser()
  scaling.add_arguments(parser)
  return "\n".join(scaling.report(parser.parse_args(flags)))


def test_report_tells_when_a_host_starves():
  rate = "--chip_rate=1000"
  plenty = _report(rate, "--decode_rate=100", "--host_cores=100")
  assert "starves" not in plenty
  short = _report(rate, "--decode_rate=10", "--host_cores=100")
  # 4 chips want 4,000 images/s of a host that decodes 1,000.
  assert "decodes 1,000" in short and "400 cores would do" in short
  assert "starves: input feeds 2,000 images/s" in short
  by_card = _report(rate, "--decode_rate=100", "--nic_gbps=1")
  assert "the network card ends at 272 images/s a chip" in by_card


def test_what_a_step_moves():
  # The "5.6 M floats".
  assert "22.3 MB of gradients" in _report("--variant=s")


@pytest.mark.parametrize(
  "flag", ["--mfu=0", "--decode_rate=-1", "--chips=8,x", "--chips=0"]
)
def test_wrong_flags_are_named(flag, capsys):
  assert command.main(["scaling", flag]) == 1
  assert flag in capsys.readouterr().err.replace(".0 ", " ")
