"""The command that scores shipped files, beside the task's own evaluation."""

import dataclasses
import json

import cv2
import jax
import pytest

from mobilevit_jax import evaluate
from mobilevit_jax import experiment
from mobilevit_jax import steps
from mobilevit_jax.data import sources
from mobilevit_jax.data.sources import digits
from mobilevit_jax.export import accuracy
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import metadata
from mobilevit_jax.export import nms
from mobilevit_jax.export import verify
from mobilevit_jax.models import mobilevit
from mobilevit_jax.run import sharding
from tests import tiny_masks
from tests.export.random_model import random_model

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
  """Compiles in a third of the time, and has few images to judge on."""
  monkeypatch.setattr(digits, "_NUM_TEST", 40)
  name = "mobilevit_xxs"
  variant = dataclasses.replace(mobilevit.VARIANTS[name], depths=(1, 0, 0))
  monkeypatch.setitem(mobilevit.VARIANTS, name, variant)


def _net(**fields):
  return random_model("mobilevit_xxs", depthwise="auto", **fields)


def _write(model, folder, name, task, labels, size, **options):
  """A file of a net, as the command writes it."""
  options = contract.Options(size=size, **options)
  kind = experiment.TASKS[task]
  transform = kind.transform()
  how = nms.Suppression() if task == "detect" else None
  document = metadata.describe(
    model,
    options,
    transform.preprocessing(size),
    task=task,
    name="mobilevit_xxs",
    labels=labels,
    nms=how,
  )
  kinds = {".tflite": "litert", ".onnx": "onnx", ".zip": "stablehlo"}
  path = folder / name
  content = formats.FORMATS[kinds[path.suffix]].build(
    model, options, metadata.dumps(document)
  )
  path.write_bytes(content)
  return path


def _evaluated(model, task, source, size):
  """The metrics of the net in JAX, by the evaluation that training has."""
  kind = experiment.TASKS[task]
  setup = experiment.Evaluation(
    task=kind.make(None, model.head.num_classes),
    transform=kind.transform(),
    source=source,
    model=model,
    layout=sharding.Layout(jax.devices()[:1]),
    size=size,
    batch=8,
  )
  return evaluate.Evaluator(setup)({"net": steps.split(model)[1:]})


def _scored(capsys, *args):
  assert accuracy.main([*map(str, args), "--json"]) == 0
  return json.loads(capsys.readouterr().out)


def test_a_classifiers_top1_is_the_evaluations(tmp_path, capsys):
  model = _net(num_classes=10)
  names = list("0123456789")
  files = [
    _write(model, tmp_path, "a.tflite", "classify", names, 64, batch=3),
    _write(
      model,
      tmp_path,
      "b.onnx",
      "classify",
      names,
      64,
      batch=None,
      input="uint8",
      output="probabilities",
    ),
    _write(model, tmp_path, "c.zip", "classify", None, 64, batch=None),
  ]
  source = sources.make_source("digits", "test")
  expected = _evaluated(model, "classify", source, 64)
  assert 0 < expected["net_top1"] < 1
  for found in _scored(capsys, *files, "--data=digits"):
    assert found["top1"] == pytest.approx(expected["net_top1"], abs=0.03)
    assert found["loss"] == pytest.approx(expected["net_loss"], rel=1e-4)
  # A part, and as a table.
  args = [str(files[0]), "--data=digits", "--split=train", "--images=7"]
  assert accuracy.main(args) == 0
  printed = capsys.readouterr().out
  assert "7 of 1757 images of digits/train" in printed
  assert "top1" in printed and "a.tflite" in printed


def test_a_segmenters_mean_iou_is_the_evaluations(tmp_path, capsys):
  tiny_masks.write(tmp_path, train=1, val=5)
  net = {"output_stride": 16, "aspp_width": 32, "num_classes": 2}
  model = _net(head="deeplabv3", **net)
  source = sources.make_source("masks", "val", data_dir=tmp_path)
  names = ["background", "disc"]
  files = [
    _write(model, tmp_path, "a.tflite", "segment", names, 64, output="mask"),
    _write(model, tmp_path, "b.onnx", "segment", names, 64, batch=None),
  ]
  expected = _evaluated(model, "segment", source, 64)
  assert 0 < expected["net_miou"] < 1
  for found in _scored(
    capsys, *files, "--data=masks", f"--data_dir={tmp_path}"
  ):
    assert found["miou"] == pytest.approx(expected["net_miou"], abs=1e-3)


def test_a_detectors_map_is_the_evaluations(tmp_path, capsys):
  model = _net(head="ssdlite", num_classes=2)
  source = _boxes_that_it_finds(tmp_path, model)
  names = ["one", "two"]
  how = nms.Suppression()
  inside = {"batch": None, "nms": how}
  options = {"output": "boxes"}
  files = [
    _write(model, tmp_path, "a.tflite", "detect", names, 64, **options),
    _write(model, tmp_path, "b.onnx", "detect", names, 64, **options, **inside),
  ]
  expected = _evaluated(model, "detect", source, 64)
  assert 0.1 < expected["net_map_50"] < 1
  data = ["--data=yolo_folder", f"--data_dir={tmp_path}"]
  for found in _scored(capsys, *files, *data):
    for name in ("map", "map_50", "ar_100", "ap_one"):
      assert found[name] == pytest.approx(expected[f"net_{name}"], abs=1e-3)


def _boxes_that_it_finds(folder, model):
  """A set whose truth is a part of what an untrained net answers."""
  (folder / "classes.txt").write_text("one\ntwo\n")
  for kind in ("images", "labels"):
    (folder / kind / "val").mkdir(parents=True)
  images = verify.built_in_images(64, 4)
  for index, image in enumerate(images):
    cv2.imwrite(str(folder / f"images/val/{index}.png"), image[..., ::-1])
  options = contract.Options(
    size=64, output="boxes", nms=nms.Suppression(most=9)
  )
  found = verify.answers_of_jax(model, images, options)
  for index in range(4):
    lines = []
    for place in range(0, 9, 2):
      x0, y0, x1, y1 = found["boxes"][index, place]
      numbers = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
      label = found["classes"][index, place]
      lines.append(" ".join(map(str, (label, *numbers))))
    (folder / f"labels/val/{index}.txt").write_text("\n".join(lines))
  return sources.make_source("yolo_folder", "val", data_dir=folder)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_runs_own_held_out_images_are_found(tmp_path, capsys):
  model = _net(num_classes=10)
  file = _write(model, tmp_path, "a.onnx", "classify", None, 64, batch=None)
  data = {"name": "digits", "dir": None, "train_split": "train"}
  record = {"data": data | {"eval_split": "test"}}
  (tmp_path / "config.json").write_text(json.dumps(record))
  (run,) = _scored(capsys, file, f"--config={tmp_path}")
  (own,) = _scored(capsys, file, "--config=configs/digits.py")
  assert run == own
  (other,) = _scored(
    capsys, file, "--config=configs/digits.py", "--config.data.eval_split=train"
  )
  assert other["top1"] != own["top1"]


def test_mistakes_are_named(tmp_path, capsys):
  model = _net(num_classes=10)
  turned = _write(
    model, tmp_path, "a.onnx", "classify", list("9876543210"), 64, batch=None
  )
  few = _write(
    _net(num_classes=4), tmp_path, "b.onnx", "classify", None, 64, batch=None
  )
  stages = _write(
    model, tmp_path, "c.onnx", "classify", None, 64, output="features"
  )
  (tmp_path / "x.onnx").write_bytes(b"")
  for words, message in (
    ([turned], "give --config or --data"),
    ([turned, "--data=digits"], "classes in another order: 9, 8, 7"),
    ([few, "--data=digits"], "b.onnx has 4 classes, and digits/test 10"),
    ([stages, "--data=digits"], "features, which have no metric"),
    ([tmp_path / "x.onnx", "--data=digits"], "export it again"),
    ([tmp_path / "x.mlpackage", "--data=digits"], "must end in .zip, .tflite"),
    ([tmp_path / "y.onnx", "--data=digits"], "y.onnx"),
    ([few, "--data=digits", "--images=0"], "--images=0 must be at least 1"),
    ([few, "--dato=digits"], "unrecognized arguments: --dato=digits"),
  ):
    assert accuracy.main([*map(str, words)]) == 1
    assert message in capsys.readouterr().err
