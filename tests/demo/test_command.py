"""`python -m mobilevit_jax.demo`, as typed; the page is `test_demo.py`'s."""

import json
import pathlib
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from docs.generate import demos
from mobilevit_jax.data import sources
from mobilevit_jax.demo import __main__ as command
from mobilevit_jax.demo import engines
from mobilevit_jax.demo import folder
from mobilevit_jax.demo import server
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import metadata
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import teaching
from tests.export.random_model import random_model

# As `-m` does. A shell that runs tests in its background has Ctrl-C ignored.
_COMMAND = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("mobilevit_jax.demo", run_name="__main__", alter_sys=True)
"""
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def fake_engines(tmp_path, monkeypatch):
  """A folder in the place of 61 MB from npm."""
  place = tmp_path / "engines"
  for engine in ("onnxruntime-web", "litert"):
    (place / engine).mkdir(parents=True)
    (place / engine / "a.wasm").write_bytes(b"\0asm")
  (place / engines.LICENCES).write_text("MIT")
  monkeypatch.setattr(engines, "FOLDER", place)


def test_without_engines_it_says_how_to_get_them(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(engines, "FOLDER", tmp_path / "none")
  out = tmp_path / "out"
  assert command.main(["net.onnx", f"--out={out}"]) == 1
  assert "`make demo` in a checkout" in capsys.readouterr().err
  assert not out.exists()


@pytest.mark.parametrize(
  ("arguments", "message"),
  (
    (["net.zip"], "browsers run .onnx and .tflite files"),
    (["nowhere.onnx"], "nowhere.onnx"),
    (["nowhere"], "nowhere"),
    (["net.onnx", "--port=70000"], "--port=70000 must be from 0 to 65535"),
    (["net.onnx", "--host=192.0.2.1"], "can't serve at 192.0.2.1:8000"),
  ),
)
def test_mistakes_are_named(fake_engines, capsys, arguments, message):
  assert command.main(arguments) == 1
  error = capsys.readouterr().err
  assert error.startswith("demo: ")
  assert message in error


def test_a_port_that_is_taken_is_named(fake_engines, tmp_path, capsys):
  with server.make(tmp_path, "127.0.0.1", 0) as web:
    port = web.server_address[1]
    assert command.main(["net.onnx", f"--port={port}"]) == 1
  assert "--port=0 takes one that is" in capsys.readouterr().err


def test_what_is_fetched_is_what_the_lock_has():
  wanted = json.loads((engines._HERE / "package.json").read_text())
  lock = json.loads((engines._HERE / "package-lock.json").read_text())
  licences = (engines._HERE / "licences.txt").read_text()
  for name, version in wanted["dependencies"].items():
    entry = lock["packages"][f"node_modules/{name}"]
    assert entry["version"] == version
    assert version in licences
  for entry in lock["packages"].values():
    assert "integrity" in entry or entry == lock["packages"][""]
  # A page's address of a module is written in two places.
  page = (folder.PAGE / "index.html").read_text()
  assert "./engines/litert/wasm-utils.js" in page


def test_engines_are_fetched_once_and_by_npm(fake_engines, capsys, monkeypatch):
  assert engines.main([]) == 0
  assert "is there already" in capsys.readouterr().out
  monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
  monkeypatch.setattr(engines.shutil, "which", lambda name: None)
  assert engines.main(["--force"]) == 1
  assert "there is no npm here" in capsys.readouterr().err
  # What was there stays.
  engines.check()


def test_samples_are_those_a_run_was_evaluated_on(capsys):
  data = {"name": "digits", "eval_split": "test", "dir": None}
  document = {"preprocessing": {"size": 32}}
  found = list(folder._samples(None, {"data": data}, document))
  digits = sources.make_source("digits", "test")
  assert [name for name, _ in found][:2] == ["test#0", "test#45"]
  np.testing.assert_array_equal(found[1][1], digits[45].image)
  # Where they are gone, coloured squares.
  data |= {"name": "folder", "dir": "/nowhere"}
  (name, image), *others = folder._samples(None, {"data": data}, document)
  assert (name, image.shape, len(others)) == ("squares 1", (32, 32, 3), 7)
  assert "--images" in capsys.readouterr().out


@pytest.mark.export
@pytest.mark.slow
def test_weights_become_a_folder_with_this_files_answers(
  fake_engines, tmp_path, capsys
):
  pytest.importorskip("onnxruntime")
  model = random_model("mobilevit_xxs", depthwise="auto")
  weights = tmp_path / "w.safetensors"
  save_weights(model, weights, labels=list("abcdefg"))
  out = tmp_path / "public"
  arguments = [str(weights), f"--out={out}", "--size=64", "--title=Ours"]
  assert command.main(arguments) == 0
  assert "8 samples, with this file's answers" in capsys.readouterr().out
  about = json.loads((out / "demo.json").read_text())
  assert about["title"] == "Ours"
  text = formats.FORMATS["onnx"].metadata((out / "model.onnx").read_bytes())
  assert metadata.read(text, "net")["preprocessing"]["size"] == 64
  for sample in about["samples"]:
    assert (out / sample["file"]).exists()
    np.testing.assert_allclose(
      sum(sample["answer"]["probabilities"]), 1, rtol=1e-5
    )
  # The engine of its own format alone, and the licences.
  names = sorted(path.name for path in (out / "engines").iterdir())
  assert names == ["LICENCES.txt", "onnxruntime-web"]
  assert command.main(arguments) == 1
  assert "--force" in capsys.readouterr().err


@pytest.mark.export
def test_it_serves_until_ctrl_c(tmp_path):
  pytest.importorskip("onnxruntime")
  try:
    engines.check()
  except ValueError as error:
    pytest.skip(str(error))
  model = random_model("mobilevit_xxs", depthwise="auto")
  options = contract.Options(size=64, output="features")
  how = {"resize": "stretch", "size": 64, "interpolation": "bilinear"}
  document = metadata.describe(
    model, options, how, task="x", name="mobilevit_xxs"
  )
  file = tmp_path / "net.onnx"
  file.write_bytes(
    formats.FORMATS["onnx"].build(model, options, metadata.dumps(document))
  )
  process = subprocess.Popen(
    [sys.executable, "-c", _COMMAND, str(file), "--port=0"],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    line = next(line for line in lines if "is open" in line)
    url = line.partition(" is open")[0]
    assert url.startswith("http://127.0.0.1:")
    kinds = {
      "": "text/html",
      "app.js": "text/javascript",
      "engines/onnxruntime-web/ort.wasm.min.mjs": "text/javascript",
      "engines/litert/litert_wasm_internal.wasm": "application/wasm",
    }
    for name, kind in kinds.items():
      with urllib.request.urlopen(f"{url}{name}") as answer:
        assert answer.headers["Content-Type"] == kind
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_sites_demos_are_linked_where_their_weights_are(
  tmp_path, monkeypatch
):
  # Each is of weights that come with the package, and of images that there are.
  assert demos.DEMOS.keys() <= teaching.TEACHING.keys()
  for demo in demos.DEMOS.values():
    assert len(sources.make_source(demo.data, demo.split, prepare=False))
  file = tmp_path / "digits.safetensors"
  row = teaching.TEACHING["digits"]
  monkeypatch.setattr(teaching, "find", lambda name: (file, row))
  assert demos.links() == "This site has none yet."
  file.touch()
  link = '- <a href="demo/digits/index.html">Handwritten digits</a>'
  assert link in demos.links().splitlines()
