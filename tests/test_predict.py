"""The `predict` command, and the presets it crops images by."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import cv2
from flax import nnx
import jax
import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

from mobilevit_jax import create_model
from mobilevit_jax import predict
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.weights import save_weights

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLASSES = 6


@pytest.fixture(scope="module")
def model():
  return create_model("mobilevit_xxs", num_classes=CLASSES, seed=1)


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
  path = tmp_path_factory.mktemp("weights") / "w.safetensors"
  labels = [f"name {index}" for index in range(CLASSES)]
  save_weights(model, path, to="timm", labels=labels)
  return path


@pytest.fixture
def folder(tmp_path):
  """Five images, two levels deep."""
  rng = np.random.default_rng(0)
  (tmp_path / "images/deep").mkdir(parents=True)
  for index in range(5):
    pixels = rng.integers(0, 256, (60 + index, 80, 3), np.uint8)
    place = "deep/" if index > 2 else ""
    Image.fromarray(pixels).save(tmp_path / f"images/{place}{index}.png")
  return tmp_path / "images"


def run(capsys, *args) -> tuple[int, list[dict], str]:
  code = predict.main([str(arg) for arg in args])
  output = capsys.readouterr()
  return code, [json.loads(x) for x in output.out.splitlines()], output.err


def test_json_over_a_folder(capsys, weights, folder, model):
  code, found, err = run(
    capsys, f"--weights={weights}", "--json", "--size=64", "--batch=2", folder
  )
  assert (code, err) == (0, "")
  files = sorted(folder.rglob("*.png"))
  assert [entry["image"] for entry in found] == [str(file) for file in files]
  # timm's names ask for timm's crop.
  pixels = [presets.preprocess(file.read_bytes(), "timm", 64) for file in files]
  graphdef, state = nnx.split(model)
  forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
  all_logits = np.asarray(forward(state, np.stack(pixels) / np.float32(255)))
  for entry, logits in zip(found, all_logits, strict=True):
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    order = np.argsort(-expected)[:5]
    assert [top["class"] for top in entry["top"]] == order.tolist()
    assert [top["label"] for top in entry["top"]] == [
      f"name {index}" for index in order
    ]
    np.testing.assert_allclose(
      [top["probability"] for top in entry["top"]], expected[order], atol=1e-6
    )


def test_bad_images_are_named_and_the_rest_go_on(capsys, weights, folder):
  bad = folder / "bad.jpg"
  bad.write_bytes(b"\xff\xd8\xff no image")
  absent = folder / "absent.png"
  args = ("--size=64", "--top=1", "--json", folder / "0.png", bad, absent)
  code, found, err = run(
    capsys, f"--weights={weights}", *args, folder / "1.png"
  )
  assert code == 1
  names = [pathlib.Path(entry["image"]).name for entry in found]
  assert names == ["0.png", "1.png"]
  assert len(err.splitlines()) == 2
  assert str(bad) in err
  assert str(absent) in err


def test_only_regular_files_are_read(capsys, weights, folder):
  # A pipe would be waited for, and this device has no end.
  os.mkfifo(folder / "pipe.jpg")
  (folder / "zero.jpg").symlink_to("/dev/zero")
  args = (f"--weights={weights}", "--size=64", "--top=1", "--json")
  code, found, err = run(capsys, *args, folder)
  assert (code, len(found), err) == (0, 5, "")
  code, found, err = run(
    capsys, *args, folder / "pipe.jpg", folder / "zero.jpg", folder / "0.png"
  )
  assert (code, len(found)) == (1, 1)
  assert err.count("is not a regular file\n") == 2


def test_odd_names_are_printed_without_what_terminals_obey(
  capsys, weights, folder, tmp_path
):
  (folder / "._0.png").write_bytes(b"what macOS adds")
  (folder / ".cache").mkdir()
  (folder / ".cache" / "0.png").write_bytes((folder / "0.png").read_bytes())
  for name in (b"\xff\x1b[31m.png", b"new\nline.png"):
    path = folder / os.fsdecode(name)
    path.write_bytes((folder / "0.png").read_bytes())
  labels = tmp_path / "labels.json"
  labels.write_text(json.dumps([f"\x1b[2J{i}\n" for i in range(CLASSES)]))
  code = predict.main(
    [
      f"--weights={weights}",
      f"--labels={labels}",
      "--size=64",
      "--top=1",
      f"--draw={tmp_path / 'drawn'}",
      str(folder),
    ]
  )
  printed = capsys.readouterr()
  assert (code, printed.err) == (0, "")
  assert "\x1b" not in printed.out
  assert len(printed.out.splitlines()) == 2 * 7
  assert "\\udcff\\x1b[31m.png" in printed.out
  assert "\\x1b[2J" in printed.out
  assert len([*(tmp_path / "drawn").iterdir()]) == 7


def test_answer_that_is_no_number_is_an_error(capsys, weights, folder):
  tensors = safetensors.numpy.load_file(weights)
  tensors["head.fc.weight"] = np.full_like(tensors["head.fc.weight"], 3e38)
  path = folder / "large.safetensors"
  safetensors.numpy.save_file(tensors, path)
  code, found, err = run(
    capsys, f"--weights={path}", "--size=64", "--json", folder / "0.png"
  )
  assert (code, found) == (1, [])
  assert "0.png: the net's answer is not a number\n" in err


@pytest.mark.parametrize("name", ["none", "list", "fields", "model", "bytes"])
def test_strange_run_is_one_line(capsys, folder, name):
  run_folder = folder / "run"
  (run_folder / "checkpoints").mkdir(parents=True)
  content = {
    "none": b'{"version": "0.2.0", "model": {"name": "mobilevit_xxs", '
    b'"num_classes": 6}}',
    "list": b"[]",
    "fields": b'{"version": "0.2.0", "early_stop": 3}',
    "model": b'{"version": "0.2.0", "model": {"name": ["x"], "depth": {}}}',
    "bytes": b"\xff",
  }[name]
  (run_folder / "config.json").write_bytes(content)
  code, found, err = run(capsys, f"--weights={run_folder}", folder / "0.png")
  assert (code, found) == (1, [])
  assert err.startswith("predict: ") and err.count("\n") == 1
  assert str(run_folder) in err


def test_pictures_are_drawn_for_every_image(capsys, weights, folder, tmp_path):
  drawn = tmp_path / "drawn"
  code, *_ = run(
    capsys,
    *(f"--weights={weights}", "--json", "--size=64", f"--draw={drawn}"),
    folder,
  )
  assert code == 0
  names = sorted(path.name for path in drawn.iterdir())
  assert names == [f"{index}.png.png" for index in range(5)]
  for name in names:
    with Image.open(drawn / name) as picture:
      assert picture.height > 64  # the image, and a line under it


def test_label_sources(weights, tmp_path):
  lines, listed = tmp_path / "names.txt", tmp_path / "names.json"
  lines.write_text("\n".join("uvwxyz"))
  listed.write_text(json.dumps(list("abcdef")))
  for labels, letters in ((lines, "uvwxyz"), (listed, "abcdef")):
    found = predict.Predictor(str(weights), labels=str(labels))
    assert found.class_names == tuple(letters)
  assert predict.Predictor(str(weights)).class_names[5] == "name 5"
  lines.write_text("one\ntwo")
  with pytest.raises(ValueError, match="2 class names for a classifier of 6"):
    predict.Predictor(str(weights), labels=str(lines))


def test_imagenet_names_come_from_tfds(tmp_path):
  save_weights(create_model("mobilevit_xxs"), tmp_path / "w.npz")
  found = predict.Predictor(str(tmp_path / "w.npz"))
  assert (len(found.class_names), found.class_names[0]) == (1000, "n01440764")
  assert (found.crop.preset, found.crop.size) == ("cvnets", 256)


def test_numbers_where_nobody_knows_names(model, tmp_path):
  save_weights(model, tmp_path / "w.npz")
  assert predict.Predictor(str(tmp_path / "w.npz")).class_names[2] == "class 2"


@pytest.mark.parametrize(
  ("args", "message"),
  (
    (("--variant=s",), "does not fit the model"),
    (("--variant=m",), "variant=m must be one of xxs, xs, s"),
    (("--batch=0",), "--batch=0"),
    (("--size=16",), "too small"),
    (("--size=100000",), "size=100000 must be at least 1 and at most 4096"),
    (("--labels=absent.txt",), "absent.txt"),
  ),
)
def test_errors(capsys, weights, folder, args, message):
  code, found, err = run(capsys, f"--weights={weights}", *args, folder)
  assert (code, found) == (1, [])
  assert message in err
  assert "Traceback" not in err


def test_empty_folder(capsys, weights, tmp_path):
  code, _, err = run(capsys, f"--weights={weights}", tmp_path)
  assert code == 1
  assert f"{tmp_path} holds no image" in err


def test_command_prints_a_table(weights, folder):
  done = subprocess.run(
    [
      *(sys.executable, "-m", "mobilevit_jax.predict", f"--weights={weights}"),
      *("--size=64", "--top=3", str(folder / "2.png")),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert done.returncode == 0, done.stderr
  name, *rows = done.stdout.splitlines()
  assert name == str(folder / "2.png")
  assert len(rows) == 3
  assert all("%  name " in row for row in rows)


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("shape", ((90, 400), (400, 90), (64, 64)))
def test_presets_crop_the_centre(preset, shape):
  image = np.zeros((*shape, 3), np.uint8)
  image[..., 0] = 200
  image[:, : shape[1] // 2, 1] = 100  # left half
  out = presets.preprocess(image, preset, 64)
  assert (out.shape, out.dtype) == ((64, 64, 3), np.uint8)
  assert (out[..., 0] == 200).all()
  assert (out[:, :24, 1] == 100).all()
  assert (out[:, 40:, 1] == 0).all()


def test_crop_is_the_runs_until_another_is_asked_for():
  run = {"preset": "hf", "size": 128, "resize_size": 154}
  choose = functools.partial(presets.choose, "jax", run)
  assert choose() == presets.Crop("hf", 128, 154)
  assert choose(size=64) == presets.Crop("hf", 64, 77)
  assert choose(preset="hf") == choose()
  assert choose(preset="timm") == presets.Crop("timm", 128)
  assert presets.choose("timm") == presets.Crop("timm", 256)
  with pytest.raises(ValueError, match="preset='torch'"):
    choose(preset="torch")
  image = np.random.default_rng(0).integers(0, 256, (154, 154, 3), np.uint8)
  np.testing.assert_array_equal(
    presets.Crop("cvnets", 128, 154)(image, "it"), image[13:141, 13:141]
  )


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_presets_of_a_line(preset):
  # Resized as it is, it would take gigabytes.
  image = np.full((1, 60_000, 3), 7, np.uint8)
  out = presets.preprocess(image, preset, 256)
  assert (out.shape, np.unique(out).tolist()) == ((256, 256, 3), [7])


def test_presets_are_their_resizes():
  image = np.random.default_rng(0).integers(0, 256, (320, 480, 3), np.uint8)
  # 288 of 320 rows, 432 columns; then the middle 256.
  resized = cv2.resize(image, (432, 288), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_array_equal(
    presets.preprocess(image, "cvnets"), resized[16:272, 88:344]
  )
  resized = Image.fromarray(image).resize((432, 288), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(
    presets.preprocess(image, "hf"), np.asarray(resized)[16:272, 88:344]
  )
  resized = Image.fromarray(image).resize((426, 284), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(
    presets.preprocess(image, "timm"), np.asarray(resized)[14:270, 85:341]
  )


def test_half_a_pixel():
  # 451 columns leave 195 beside the crop: transformers starts it at 97, and
  # torchvision, for timm, at the even 98 of 97.5.
  image = np.zeros((288, 451, 3), np.uint8)
  image[:, 97] = 255
  assert presets.preprocess(image, "hf")[0, 0, 0] == 255
  image = np.zeros((284, 451, 3), np.uint8)
  image[:, 98] = 255
  assert presets.preprocess(image, "timm")[0, 0, 0] == 255


def test_preset_errors():
  image = np.zeros((9, 9, 3), np.uint8)
  with pytest.raises(ValueError, match="preset='torch'"):
    presets.preprocess(image, "torch")
  with pytest.raises(ValueError, match="size=0"):
    presets.preprocess(image, "hf", 0)
  with pytest.raises(ValueError, match=r"mine\.jpg"):
    presets.preprocess(b"no image", "hf", name="mine.jpg")
