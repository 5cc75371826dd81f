"""`python -m benchmarks train`, on a shallow net."""

import dataclasses
import json

import pytest

from benchmarks import __main__ as command
from benchmarks import timing
from mobilevit_jax import summary
from mobilevit_jax.models import mobilevit


def test_measures_the_trainers_step(monkeypatch, tmp_path, capsys):
  shallow = dataclasses.replace(  # compiles in half
    mobilevit.VARIANTS["mobilevit_xxs"], depths=(1, 0, 0)
  )
  monkeypatch.setitem(mobilevit.VARIANTS, "mobilevit_xxs", shallow)
  out = tmp_path / "train.json"
  flags = "--variant=xxs --size=32 --batch=8 --steps=2 --rounds=3"
  assert command.main(["train", *flags.split(), f"--out={out}"]) == 0
  found = json.loads(out.read_text())
  assert (found["model"], found["size"], found["batch"]) == (
    "mobilevit_xxs",
    32,
    8,
  )
  assert found["dropout"] == mobilevit.VARIANTS["mobilevit_xxs"].dropout
  macs = summary.forward_macs("mobilevit_xxs", 32, 32)
  assert found["model_flops"] == summary.train_flops(macs, 8)
  ours = found["jax"]
  assert ours["images_per_second"] == pytest.approx(
    8 * ours["steps_per_second"]
  )
  assert len(ours["rounds"]["wall"]) == len(ours["rounds"]["cpu"]) == 3
  # XLA counts its own operations: more than the model's share of a device's.
  assert ours["xla_flops"] > found["model_flops"] / found["devices"]
  # Weights, two moments and the average come in, and nothing else as large.
  state = 4 * 4 * _num_params()
  assert state < ours["xla_argument_bytes"] < 1.5 * state
  assert ours["xla_temp_bytes"] > 0 and ours["process_peak_bytes"] > state
  assert ours["mfu"] is None  # nobody knows the peak of a simulated device
  assert found["ratio"] == {}
  assert "jax: mobilevit_xxs float32 8 x 32 px" in capsys.readouterr().out


def _num_params():
  model = summary.models.abstract_model("mobilevit_xxs", depthwise="conv")
  return sum(layer.params for layer in summary.summarize(model, 32, 32))


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    ("--variant=m", "variant=m must be one of"),
    ("--batch=0", "--batch=0"),
    ("--batch=12", "--batch=12"),  # on eight devices
    ("--batch=16 --bn_groups=3", "--batch=16"),
    ("--rounds=0", "--rounds=0"),
    ("--compile", "--compile"),
    ("--task=detect --against=timm", "is compared with torchvision"),
    ("--out=/no/such/folder/a.json", "--out=/no/such/folder/a.json"),
    ("--size=16 --batch=8", "16"),
  ],
)
def test_wrong_flags_are_named(flags, named, capsys):
  assert command.main(["train", *flags.split()]) == 1
  error = capsys.readouterr().err
  assert named in error
  assert error.count("\n") == 1


def test_rounds_alternate():
  calls = []
  run = {name: lambda n, name=name: calls.append((name, n)) for name in "ab"}
  times = timing.alternate(run, rounds=3, steps=2)
  assert [name for name, _ in calls] == list("abbaab")
  assert {n for _, n in calls} == {2}
  assert all(len(each.wall) == len(each.cpu) == 3 for each in times.values())


def test_times_are_per_step_with_their_median():
  times = timing.Times(wall=[3.0, 1.0, 2.0], cpu=[5.0, 4.0, 9.0])
  assert (times.wall_median, times.cpu_median) == (2.0, 5.0)
