"""The page in a browser, with real exported files, beside Python's answers."""

import base64
import json
import pathlib
import threading

import numpy as np
from PIL import Image
import pytest

from mobilevit_jax.data import augment
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.data.transforms import detect
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.demo import engines
from mobilevit_jax.demo import folder
from mobilevit_jax.demo import server
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import metadata
from mobilevit_jax.export import nms
from tests.demo import chromium
from tests.export.random_model import random_model

pytestmark = pytest.mark.export
pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")
BROWSER = chromium.find()
if BROWSER is None:
  pytest.skip("there is no Chromium", allow_module_level=True)
try:
  engines.check()
except ValueError as error:
  pytest.skip(str(error), allow_module_level=True)

SIZE = 64
FORMATS = {".onnx": "onnx", ".tflite": "litert"}
LABELS = list("abcdefg")


@pytest.fixture(scope="module")
def browser():
  with chromium.start(BROWSER) as found:
    yield found


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
  """Ten pictures with edges and shades, of ten shapes, as PNG and as JPEG."""
  place = tmp_path_factory.mktemp("photographs")
  rng = np.random.default_rng(0)
  for index in range(10):
    height, width = rng.integers(70, 400, 2)
    y, x = np.mgrid[:height, :width]
    waves = [
      np.sin(x * rng.uniform(0.01, 0.5) + y * rng.uniform(0.01, 0.5))
      for _ in range(3)
    ]
    image = 127 + 100 * np.stack(waves, axis=-1) + rng.normal(0, 8, y.shape)[..., None]
    picture = Image.fromarray(np.uint8(image.clip(0, 255)))
    picture.save(place / f"{index}.png")
    picture.save(place / f"{index}.jpg", quality=85)
  return place


def _export(path, model, output, *, transform, task, **options):
  """Writes a file; what JAX would say to it is tested elsewhere."""
  options = contract.Options(size=SIZE, output=output, **options)
  document = metadata.describe(
    model,
    options,
    transform.preprocessing(SIZE),
    task=task,
    name="mobilevit_xxs",
    labels=LABELS,
    nms=nms.Suppression() if task == "detect" else None,
  )
  build = formats.FORMATS[FORMATS[path.suffix]].build
  path.write_bytes(build(model, options, metadata.dumps(document)))


@pytest.fixture(scope="module")
def classifier(photographs, tmp_path_factory):
  """A net that tells the photographs apart.

  A random one gives all images the same class. Here the logits' mean over the
  photographs is taken away and what is left enlarged: a pixel that is wrong
  shows, and an answer to another image too.
  """
  model = random_model("mobilevit_xxs", depthwise="auto")
  path = tmp_path_factory.mktemp("random") / "net.onnx"
  kinds = {"transform": classify.ClassifyTransform(), "task": "classify"}
  _export(path, model, "logits", **kinds)
  answer = formats.FORMATS["onnx"].engine(path.read_bytes())
  crop = presets.Crop(size=SIZE)
  logits = []
  for png in sorted(photographs.glob("*.png")):
    seen = crop(png.read_bytes(), png.name)
    logits.append(answer(np.float32(seen[None] / 255))["logits"][0])
  scale = 2 / np.std(logits - np.mean(logits, axis=0))
  layer = model.head.classifier
  layer.kernel[...] *= scale
  layer.bias[...] = scale * (layer.bias[...] - np.mean(logits, axis=0))
  return lambda path, **options: _export(
    path, model, "probabilities", **kinds, **options
  )


class Served:
  """A folder, served; `page` opens it in the browser and waits for it."""

  def __init__(self, place, browser):
    self.place, self._browser = place, browser
    self._web = server.make(place, "127.0.0.1", 0)
    self.url = f"http://127.0.0.1:{self._web.server_address[1]}/"
    threading.Thread(target=self._web.serve_forever, daemon=True).start()

  def page(self):
    self._browser.open(f"{self.url}index.html")
    self._browser.run("import('/app.js').then(page => page.ready)")
    return self._browser

  def close(self):
    self._web.shutdown()
    self._web.server_close()


@pytest.fixture
def serve(browser, tmp_path):
  served = []

  def make(file, **options):
    place = tmp_path / f"folder{len(served)}"
    place.mkdir()
    folder.write(str(file), place, **options)
    served.append(Served(place, browser))
    return served[-1]

  yield make
  for one in served:
    one.close()


def _text(browser, name):
  return browser.run(f"document.getElementById({name!r}).textContent")


def _errors(browser):
  """What went wrong in the page; LiteRT.js says how it is as an error."""
  return [line for line in browser.errors if not line.startswith("INFO: ")]


def _answer(browser, path):
  """What the page says of a picture's file."""
  data = base64.b64encode(path.read_bytes()).decode()
  return browser.run(
    f"""(async () => {{
      const page = await import("/app.js");
      const bytes = Uint8Array.from(atob("{data}"), (c) => c.charCodeAt(0));
      const {{ answer }} = await page.answerTo(new Blob([bytes]));
      if (answer.probabilities)
        answer.probabilities = Array.from(answer.probabilities);
      if (answer.mask) answer.mask.data = Array.from(answer.mask.data);
      return answer;
    }})()"""
  )


@pytest.mark.parametrize(
  ("file", "options"),
  (
    ("net.onnx", {"batch": None}),
    ("net.tflite", {"input": "uint8"}),
  ),
)
def test_classes_are_pythons(
  file, options, classifier, tmp_path, serve, photographs
):
  path = tmp_path / file
  classifier(path, **options)
  served = serve(
    path, images=sorted(photographs.glob("*.png")), title="Squares"
  )
  about = json.loads((served.place / "demo.json").read_text())
  look = folder.answers(path.read_bytes(), FORMATS[path.suffix])
  page = served.page()
  assert _text(page, "title") == "Squares"
  assert _text(page, "status") == "Ready."
  # Samples are shrunk to what a page needs, and as many as it shows: all ten
  # pictures go through the page as they are.
  assert len(about["samples"]) == folder.SAMPLES
  tops = set()
  for image in sorted(photographs.iterdir()):
    pixels = augment.decode(image.read_bytes(), image.name)
    expected = look(pixels)["probabilities"]
    found = _answer(page, image)["probabilities"]
    most = 1e-4 if image.suffix == ".png" else 0.02  # decoded otherwise
    np.testing.assert_allclose(found, expected, atol=most)
    assert np.argmax(found) == np.argmax(expected)
    tops.add(int(np.argmax(found)))
  assert len(tops) > 3  # else any answer would do
  page.run("document.getElementById('check').onclick()")
  assert _text(page, "status").startswith("8 of 8 samples have the exporter's")
  assert _errors(page) == []
  # And nothing is asked of anybody else.
  assert [url for url in page.requests if not url.startswith((served.url, "data:", "blob:"))] == []
