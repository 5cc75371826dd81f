"""`benchmark infer`, as typed; it says nothing about speed here."""

import dataclasses
import json

import pytest

from benchmarks import __main__ as benchmark
from mobilevit_jax.models import mobilevit

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")


def test_measures_every_engine(tmp_path, capsys):
  out = tmp_path / "infer.json"
  words = ["infer", "--models=mobilenetv2", "--size=32", "--rounds=2"]
  assert benchmark.main([*words, "--threads=1", f"--out={out}"]) == 0
  results = json.loads(out.read_text())["results"]
  found = {(r["engine"], r["precision"]) for r in results}
  assert found == {
    ("jax", "fp32"),
    ("onnx", "fp32"),
    ("litert", "fp32"),
    ("litert", "int8"),
    ("litert", "int8-dynamic"),
  }
  for result in results:
    assert 0 < result["wall_median"] <= result["wall_p90"]
    nanoseconds = result["latency"] * 1e15 / result["macs"]
    assert result["ns_per_mmac"] == pytest.approx(nanoseconds)
    assert result["to_mobilenetv2"] == 1
    assert result["peak_bytes"] > 2e7
  sizes = {r["precision"]: r["file_bytes"] for r in results[1:]}
  assert sizes["int8"] < 0.35 * sizes["fp32"]
  assert capsys.readouterr().out.count("mobilenetv2") == 5


def test_segmenters_and_detectors_are_measured_whole(
  tmp_path, capsys, monkeypatch
):
  name = "mobilevit_xxs"  # compiles in a third
  shallow = dataclasses.replace(mobilevit.VARIANTS[name], depths=(1, 0, 0))
  monkeypatch.setitem(mobilevit.VARIANTS, name, shallow)
  out = tmp_path / "infer.json"
  words = ["infer", "--models=xxs_deeplabv3,xxs_ssdlite", "--size=96"]
  words += ["--engines=litert,onnx", "--precisions=fp32", "--threads=1"]
  assert benchmark.main([*words, "--rounds=1", f"--out={out}"]) == 0
  results = json.loads(out.read_text())["results"]
  found = [(r["model"], r["engine"], r["size"]) for r in results]
  assert found == [
    ("xxs_deeplabv3", "litert", 96),
    ("xxs_deeplabv3", "onnx", 96),
    ("xxs_ssdlite", "litert", 96),
    ("xxs_ssdlite", "onnx", 96),
  ]
  assert all(result["wall_median"] > 0 for result in results)


@pytest.mark.parametrize(
  ("flag", "message"),
  (
    ("--engines=jax,coreml", "--engines=jax,coreml: 'coreml' must be one of"),
    ("--models=l", "--models=l: 'l' must be one of xxs, xs, s, v2_050"),
    ("--threads=0", "--threads=0: '0' must be a number from 1"),
    ("--rounds=0", "--rounds=0 must be at least 1"),
  ),
)
def test_a_wrong_flag_is_named(flag, message, capsys):
  assert benchmark.main(["infer", flag]) == 1
  assert message in capsys.readouterr().err
