"""`python -m mobilevit_jax.export`, as typed."""

import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys
import zipfile

from flax import nnx
import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

from mobilevit_jax.export import __main__ as command
from mobilevit_jax.export import formats
from mobilevit_jax.export import litert
from mobilevit_jax.export import metadata
from mobilevit_jax.weights import save_weights
from tests.export.random_model import random_images
from tests.export.random_model import random_model

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = pathlib.Path(__file__).resolve().parents[2]
LABELS = list("abcdefg")


@pytest.fixture(scope="module")
def model():
  return random_model("mobilevit_xxs", depthwise="auto")


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
  path = tmp_path_factory.mktemp("weights") / "w.safetensors"
  save_weights(model, path, labels=LABELS)
  return path


def _arguments(weights, out, *more):
  kinds = {".tflite": "litert", ".onnx": "onnx", ".zip": "stablehlo"}
  return [
    f"--weights={weights}",
    f"--out={out}",
    f"--format={kinds[out.suffix]}",
    "--size=64",
    *more,
  ]


def _litert_metadata(path):
  model = litert.read(path.read_bytes())
  (entry,) = model.metadata
  return json.loads(bytes(model.buffers[entry.buffer].data))


def _onnx_metadata(path):
  (entry,) = onnx.load(path).metadata_props
  return json.loads(entry.value)


def _stablehlo_metadata(path):
  with zipfile.ZipFile(path) as archive:
    return json.loads(archive.read("metadata.json"))


@pytest.mark.parametrize(
  ("suffix", "read"),
  (
    (".tflite", _litert_metadata),
    (".onnx", _onnx_metadata),
    (".zip", _stablehlo_metadata),
  ),
)
def test_the_file_says_what_it_is(weights, tmp_path, capsys, suffix, read):
  out = tmp_path / f"out{suffix}"
  args = _arguments(weights, out, "--input=uint8", "--output=probabilities")
  assert command.main(args) == 0
  printed = capsys.readouterr().out
  assert "mobilevit_xxs, 64 px" in printed
  assert "crop: shorter side 72 px, centre 64 px (cvnets)" in printed
  assert "most axes of a tensor: 4" in printed
  assert "largest difference from JAX" in printed
  found = read(out)
  assert found["labels"] == LABELS
  assert found["model"] == "mobilevit_xxs"
  assert found["input"]["shape"][1:] == [64, 64, 3]
  assert found["input"]["range"] == [0, 255]
  assert found["input"]["normalisation"] == "none"
  assert found["outputs"].keys() == {"probabilities"}
  assert found["preprocessing"] == {
    "resize": "crop",
    "preset": "cvnets",
    "shorter_side": 72,
    "size": 64,
    "interpolation": "bilinear",
    "antialias": False,
  }
  digest = hashlib.sha256(weights.read_bytes()).hexdigest()
  tensors = metadata.tensors_hash(safetensors.numpy.load_file(weights))
  assert found["weights"] == {
    "source": "w.safetensors",
    "file_sha256": digest,
    "sha256": tensors,
  }


def test_photographs_and_a_backbone_through_the_real_command(weights, tmp_path):
  images = np.uint8(random_images(3, 80) * 255)
  for index, image in enumerate(images):
    Image.fromarray(image).save(tmp_path / f"{index}.png")
  out = tmp_path / "out.tflite"
  more = ("--features", "--output_stride=16", "--precision=fp16", "--batch=2")
  args = _arguments(weights, out, f"--verify_images={tmp_path}", *more)
  done = subprocess.run(
    [sys.executable, "-m", "mobilevit_jax.export", *args],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert "3 images" in done.stdout
  assert "XNNPACK partitions: 1; outside them: nothing" in done.stdout
  (signature,) = litert.read(out.read_bytes()).signatureDefs
  assert [entry.name for entry in signature.outputs] == [
    f"stage{number}".encode() for number in range(1, 6)
  ]


def test_eight_bits_are_judged_by_the_classes(model, tmp_path, capsys):
  # Of a random net's classes none stands out, and eight bits would mix them.
  graphdef, state = nnx.split(model)
  sure = nnx.merge(graphdef, state)
  sure.head.classifier.bias[...] += 100 * np.eye(len(LABELS))[0]
  weights = tmp_path / "sure.safetensors"
  save_weights(sure, weights, labels=LABELS)
  for index, image in enumerate(np.uint8(random_images(6, 64) * 255)):
    Image.fromarray(image).save(tmp_path / f"{index}.png")
  out = tmp_path / "out.tflite"
  args = _arguments(weights, out, "--precision=int8", "--features")
  assert command.main([*args, f"--calibration_images={tmp_path}"]) == 0
  assert "of 6 images" in capsys.readouterr().out
  kinds = [
    tensor.type for tensor in litert.read(out.read_bytes()).subgraphs[0].tensors
  ]
  assert kinds.count(litert.flatbuffer.schema().TensorType.INT8) > 100


@pytest.mark.parametrize(
  ("name", "more", "message"),
  (
    ("out.tflite", ["--precision=int8"], "name some by --calibration_images"),
    ("out.onnx", ["--nms"], "--nms is for detectors' boxes"),
    ("out.onnx", ["--precision=int8-dynamic"], "needs --format=litert"),
    ("out.tflite", ["--batch=any"], "--batch=any: the batch of litert files"),
    ("out.tflite", ["--batch=0"], "--batch=0 must be at least 1"),
    ("out.tflite", ["--size=16"], "--size=16 must be at least 32"),
    ("out.tflite", ["--output=boxes"], "one of logits, probabilities, feat"),
    ("out.tflite", ["--variant=s"], "does not fit the model"),
    ("out.tflite", ["--format=onnx"], "must end in .onnx"),
    ("out.tflite", ["--weights=nowhere.npz"], "nowhere.npz: there is no such"),
    ("out.tflite", ["--verify_images=nothing.png"], "nothing.png"),
  ),
)
def test_mistakes_are_named(weights, tmp_path, capsys, name, more, message):
  assert command.main(_arguments(weights, tmp_path / name, *more)) == 1
  error = capsys.readouterr().err
  assert error.startswith("export: ")
  assert message in error
  assert not list(tmp_path.iterdir())


def test_does_not_overwrite(weights, tmp_path, capsys):
  out = tmp_path / "out.onnx"
  out.write_bytes(b"precious")
  assert command.main(_arguments(weights, out)) == 1
  assert "exists; --force" in capsys.readouterr().err
  assert out.read_bytes() == b"precious"
  assert command.main(_arguments(weights, out, "--force")) == 0
  onnx.load(out)


def test_a_file_that_differs_is_not_written(
  weights, tmp_path, capsys, monkeypatch
):
  def slightly_wrong(model, options, document):
    model = nnx.clone(model)
    model.head.classifier.bias[...] += np.float32(1e-3)
    return litert.build(model, options, document)

  broken = dataclasses.replace(formats.FORMATS["litert"], build=slightly_wrong)
  monkeypatch.setitem(formats.FORMATS, "litert", broken)
  assert command.main(_arguments(weights, tmp_path / "out.tflite")) == 1
  assert (
    "differs from JAX by 0.001 on 8 images; fp32 may by"
    in capsys.readouterr().err
  )
  assert not list(tmp_path.iterdir())
