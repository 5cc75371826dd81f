"""Parameters, multiply-adds and FLOPs, and the command that prints them."""

import pytest

from mobilevit_jax import models
from mobilevit_jax import summary

LAYERS = [
  "stem",
  *("stage1.0", "stage2.0", "stage2.1", "stage2.2"),
  *("stage3.0", "stage3.1", "stage4.0", "stage4.1", "stage5.0", "stage5.1"),
  *("head.expand", "head.classifier"),
]

# Counted on the published PyTorch networks, in the order of LAYERS.
PARAMS = {
  "mobilevit_xxs": (
    *(464, 1472, 1744, 2976, 2976, 4176, 135_712),
    *(12_128, 329_696, 20_256, 413_184, 26_240, 321_000),
  ),
  "mobilevit_xs": (
    *(464, 3968, 12_000, 21_024, 21_024, 24_128, 273_024),
    *(40_352, 658_800, 60_672, 779_760, 37_632, 385_000),
  ),
  "mobilevit_s": (
    *(464, 3968, 14_080, 36_224, 36_224, 44_480, 612_288),
    *(91_264, 1_680_768, 154_432, 2_159_760, 103_680, 641_000),
  ),
}
# Convolutions, linear layers, attention at 256 px; PyTorch's FlopCounter / 2.
MACS_256 = {
  "mobilevit_xxs": (195_166_208, 134_013_440, 78_184_448),
  "mobilevit_xs": (607_440_896, 301_194_240, 117_276_672),
  "mobilevit_s": (1_092_354_048, 730_842_112, 177_635_328),
}
# Sums in millions, to the one digit that they were noted with.
MACS_M = {
  160: (143.2, 378.7, 755.1),
  192: (210.0, 548.4, 1082.0),
  224: (301.5, 772.3, 1521.5),
  288: (546.5, 1347.9, 2619.4),
  320: (705.0, 1705.8, 3282.1),
  512: (2566.7, 5509.8, 10133.0),
}


def layers_of(name: str, size: int) -> list[summary.Layer]:
  model = models.abstract_model(name, depthwise="conv")
  return summary.summarize(model, size, size)


@pytest.mark.parametrize("name", PARAMS)
def test_by_layer(name):
  layers = layers_of(name, 256)
  assert [layer.name for layer in layers] == LAYERS
  assert tuple(layer.params for layer in layers) == PARAMS[name]
  macs = [layer.macs for layer in layers]
  total = sum(macs, summary.Macs())
  assert (total.conv, total.linear, total.attention) == MACS_256[name]
  channels = models.VARIANTS[name].channels
  assert layers[0].shape == (1, 128, 128, channels[0])
  assert layers[10].shape == (1, 8, 8, channels[5])


# MobileViTv2's convolutions and classifier, in millions, by width.
MACS_V2 = {
  "050": (361.9, 464.6, 1045.0),
  "075": (801.0, 1028.0, 2312.5),
  "100": (1412.2, 1812.1, 4076.6),
  "125": (2195.4, 2816.9, 6337.3),
  "150": (3150.6, 4042.5, 9094.6),
  "175": (4278.0, 5488.8, 12_348.6),
  "200": (5577.4, 7155.8, 16_099.2),
}


@pytest.mark.parametrize("width", MACS_V2)
def test_v2(width):
  # At 224 px stage 5 is 7 x 7, and 8 x 8 within its block.
  for size, millions in zip((224, 256, 384), MACS_V2[width], strict=True):
    macs = summary.forward_macs(f"mobilevitv2_{width}", size, size)
    assert macs / 1e6 == pytest.approx(millions, abs=0.0501)


@pytest.mark.parametrize("size", MACS_M)
def test_other_sizes(size):
  # 160, 224 and 288 px have odd maps, whose resize must not be counted.
  for name, millions in zip(PARAMS, MACS_M[size], strict=True):
    total = sum((x.macs for x in layers_of(name, size)), summary.Macs()).total
    assert total / 1e6 == pytest.approx(millions, abs=0.0501)


@pytest.mark.parametrize("variant", ["s", "mobilevit_s"])
def test_command(capsys, variant):
  assert summary.main([f"--variant={variant}", "--size=256"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == ["layer", "output", "parameters", "MACs"]
  assert len({len(line) for line in lines[:17]}) == 1
  total = next(line for line in lines if line.startswith("total"))
  assert total.split() == ["total", "5,578,632", "2,000,831,488"]


@pytest.mark.parametrize(
  ("args", "message"),
  (
    (["--variant=l"], "variant=l must be one of xxs, xs, s"),
    (["--size=16"], "--size=16"),
    (["--output_stride=4"], "output_stride=4"),
  ),
)
def test_errors(capsys, args, message):
  assert summary.main(args) == 1
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ("kind", "bfloat16", "float32"),
  [
    ("TPU v5 lite", 197e12, 197e12),
    ("TPU v5", 459e12, 459e12),
    ("NVIDIA A100-SXM4-40GB", 312e12, 156e12),
    ("NVIDIA A100 80GB PCIe", 312e12, 156e12),
    ("NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12),
    ("NVIDIA H100 PCIe", 756e12, 378e12),
    ("NVIDIA L4", 121e12, 60.5e12),
    ("NVIDIA L40S", 362e12, 183e12),
    ("cpu", None, None),
    ("TPU v5x", None, None),
    ("NVIDIA L400", None, None),
    ("", None, None),
  ],
)
def test_peak(kind, bfloat16, float32):
  assert summary.peak_flops(kind) == bfloat16
  assert summary.peak_flops(kind, "float32") == float32
  assert summary.peak_flops(kind, "float64") is None


def test_train_flops_of_the_papers_net():
  # Paper table: MobileViT-S has about 2.0 G multiply-adds at 256 px.
  macs = summary.forward_macs("mobilevit_s", 256, 256)
  assert macs == pytest.approx(2.0e9, rel=0.03)
  assert summary.train_flops(macs, 8) == 8 * 3 * 2 * macs


def test_counting_ignores_how_the_depthwise_runs():
  counts = {
    summary.forward_macs("mobilevit_xxs", 64, 96, depthwise=kind)
    for kind in ("auto", "conv", "shift")
  }
  assert len(counts) == 1
