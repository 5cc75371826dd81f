"""The page in a browser, with real exported files, beside Python's answers."""

import base64
import json
import threading

import numpy as np
from PIL import Image
import pytest

from mobilevit_jax.data import augment
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.data.transforms import detect
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.data.transforms import segment
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
    image = (
      127
      + 100 * np.stack(waves, axis=-1)
      + rng.normal(0, 8, y.shape)[..., None]
    )
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


def _sharpen(model, photographs, path, kinds):
  """Makes a net tell the photographs, or their pixels, apart.

  A random one gives all the same class. Here the logits' mean over the
  photographs is taken away and what is left enlarged: a pixel that is wrong
  shows, and an answer to another image too.
  """
  _export(path, model, "logits", **kinds)
  answer = formats.FORMATS["onnx"].engine(path.read_bytes())
  how = kinds["transform"].preprocessing(SIZE)
  logits = []
  for png in sorted(photographs.glob("*.png")):
    pixels = augment.decode(png.read_bytes(), png.name)
    seen = folder.prepare(pixels, how)
    logits.append(answer(np.float32(seen[None] / 255))["logits"][0])
  logits = np.reshape(logits, (-1, len(LABELS)))
  mean = np.mean(logits, axis=0)
  scale = 2 / np.std(logits - mean)
  layer = model.head.classifier
  layer.kernel[...] *= scale
  layer.bias[...] = scale * (layer.bias[...] - mean)


@pytest.fixture(scope="module")
def write(photographs, tmp_path_factory):
  """Writes a file of a kind, from nets that are made once."""
  nets = {}
  rows = {
    "probabilities": ("classifier", "classify", classify.ClassifyTransform()),
    "mask": ("deeplabv3", "segment", segment.SegmentTransform()),
    "boxes": ("ssdlite", "detect", detect.DetectTransform()),
  }

  def make(path, output="probabilities", **options):
    head, task, transform = rows[output]
    kinds = {"task": task, "transform": transform}
    if head not in nets:
      nets[head] = random_model("mobilevit_xxs", head=head, depthwise="auto")
      if head != "ssdlite":
        file = tmp_path_factory.mktemp("random") / "net.onnx"
        _sharpen(nets[head], photographs, file, kinds)
    _export(path, nets[head], output, **kinds, **options)
    return path

  return make


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
  """What went wrong in the page; LiteRT.js logs all it says as errors."""
  said = ("INFO: ", "WARNING: ")
  return [line for line in browser.errors if not line.startswith(said)]


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
  file, options, write, tmp_path, serve, photographs
):
  path = write(tmp_path / file, **options)
  served = serve(path, images=sorted(photographs.glob("*.png")), title="Waves")
  about = json.loads((served.place / "demo.json").read_text())
  look = folder.answers(path.read_bytes(), FORMATS[path.suffix])
  page = served.page()
  assert _text(page, "title") == "Waves"
  assert _text(page, "status") == "Ready."
  # Samples are as many as a page shows: all ten go through it here.
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
  # As a user would: a photograph of one's own.
  page.choose("#photograph", photographs / "3.png")
  page.until("document.getElementById('agreement').textContent[0] === 'k'")
  pixels = augment.decode((photographs / "3.png").read_bytes(), "3.png")
  best = int(np.argmax(look(pixels)["probabilities"]))
  assert _text(page, "results").startswith(LABELS[best])
  assert _errors(page) == []
  # And nothing is asked of anybody else.
  own = (served.url, "data:", "blob:")
  assert [url for url in page.requests if not url.startswith(own)] == []


def test_a_mask_is_pythons(write, tmp_path, serve, photographs):
  path = write(tmp_path / "net.onnx", "mask")
  served = serve(path, images=[photographs])
  look = folder.answers(path.read_bytes(), "onnx")
  page = served.page()
  for image in sorted(photographs.glob("*.png"))[:4]:
    mask = look(augment.decode(image.read_bytes(), image.name))["mask"]
    found = _answer(page, image)["mask"]
    assert [found["height"], found["width"]] == [*mask.shape]
    # Two classes may be as likely in a pixel, up to rounding.
    assert np.mean(np.reshape(found["data"], mask.shape) == mask) > 0.999
    assert len(np.unique(mask)) > 1
  # The samples' masks are read from their PNG files.
  page.run("document.getElementById('check').onclick()")
  assert _text(page, "status").startswith("8 of 8 samples have the exporter's")
  assert _errors(page) == []


@pytest.mark.parametrize("how", (None, nms.Suppression(most=50)))
def test_boxes_are_pythons(how, write, tmp_path, serve, photographs):
  path = write(tmp_path / "net.onnx", "boxes", nms=how)
  served = serve(path, images=[photographs])
  look = folder.answers(path.read_bytes(), "onnx")
  page = served.page()
  for image in sorted(photographs.glob("*.png"))[:4]:
    expected = look(augment.decode(image.read_bytes(), image.name))
    found = _answer(page, image)
    assert len(expected["detections"]) > 20
    for one, other in zip(
      found["detections"], expected["detections"], strict=True
    ):
      assert one["label"] == other["label"]
      np.testing.assert_allclose(one["score"], other["score"], atol=1e-5)
      np.testing.assert_allclose(one["box"], other["box"], atol=1e-4)
  page.run("document.getElementById('check').onclick()")
  assert _text(page, "status").startswith("8 of 8 samples have the exporter's")
  assert _errors(page) == []


def test_pixels_are_pythons_bit_for_bit(write, tmp_path, serve):
  page = serve(write(tmp_path / "net.onnx")).page()
  rng = np.random.default_rng(1)
  plans = [
    presets.Crop(preset, size).preprocessing()
    for preset in presets.PRESETS
    for size in (64, 97)
  ]
  plans += [
    presets.stretch(80),
    presets.Crop(size=40, resize_size=40).preprocessing(),
  ]
  # Wide, tall, more than twice as tall, longer than is looked at; small; one
  # that is resized to half exactly, and one that stays as it is.
  shapes = (
    (90, 171),
    (173, 88),
    (260, 91),
    (19, 190),
    (31, 33),
    (144, 288),
    (72, 72),
  )
  for how in plans:
    for shape in shapes:
      image = rng.integers(0, 256, (*shape, 3), np.uint8)
      found = page.run(
        f"""(async () => {{
          const {{ prepare }} = await import("/preprocess.js");
          const text = atob("{base64.b64encode(image).decode()}");
          const data = Uint8ClampedArray.from(text, (c) => c.charCodeAt(0));
          const image = {{ data, width: {shape[1]}, height: {shape[0]} }};
          return Array.from(prepare(image, {json.dumps(how)}).data);
        }})()"""
      )
      expected = folder.prepare(image, how)
      np.testing.assert_array_equal(
        np.reshape(found, expected.shape), expected, f"{shape} by {how}"
      )


def test_the_camera_and_wrong_files(write, tmp_path, serve, photographs):
  page = serve(write(tmp_path / "net.onnx", batch=2)).page()
  page.run("document.getElementById('camera').onclick()")
  page.until("document.getElementById('run').textContent.includes('of 5')")
  assert _text(page, "agreement") == "known of the samples alone"
  page.run("document.getElementById('camera').onclick()")
  assert _text(page, "camera") == "Use the camera"
  page.choose("#file", photographs / "0.png")
  page.until("document.getElementById('status').className === 'bad'")
  assert "doesn't say how it is used" in _text(page, "status")
  page.choose("#file", write(tmp_path / "net.tflite"))
  page.until("document.getElementById('status').textContent[0] === 'L'")
  page.until("document.getElementById('status').className === 'bad'")
  assert "LiteRT.js is not in this folder" in _text(page, "status")


@pytest.fixture(scope="module")
def browser_with_webgpu():
  """Its WebGPU is computed on the processor; for ONNX that takes minutes."""
  with chromium.start(
    BROWSER,
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
  ) as found:
    yield found


_CHOOSE_WEBGPU = """(async () => {
  const radio = document.querySelector("[value=webgpu]");
  radio.disabled = false;
  radio.checked = true;
  await radio.onchange();
  return document.querySelector("[name=device]:checked").value;
})()"""


def test_litert_has_the_same_answers_on_webgpu(
  write, tmp_path, browser_with_webgpu, photographs
):
  place = tmp_path / "folder"
  place.mkdir()
  folder.write(
    str(write(tmp_path / "net.tflite")),
    place,
    images=sorted(photographs.glob("*.png")),
  )
  served = Served(place, browser_with_webgpu)
  page = served.page()
  assert _text(page, "facts").endswith("on WebAssembly")
  assert page.run(_CHOOSE_WEBGPU) == "webgpu"
  assert _text(page, "facts").endswith("on WebGPU")
  page.run("document.getElementById('check').onclick()")
  assert _text(page, "status").startswith("8 of 8 samples have the exporter's")
  served.close()


def test_without_webgpu_the_page_says_so_and_goes_on(
  write, tmp_path, serve, photographs
):
  page = serve(write(tmp_path / "net.tflite"), images=[photographs]).page()
  label = page.run(
    "document.querySelector('[value=webgpu]').parentElement.textContent"
  )
  assert "not in this browser" in label
  # An adapter that was there, and is not when a file is loaded.
  assert page.run(_CHOOSE_WEBGPU) == "wasm"
  status = _text(page, "status")
  assert status.startswith("WebGPU doesn't run this file, WebAssembly does: ")
  assert _text(page, "facts").endswith("on WebAssembly")
  page.run("document.getElementById('check').onclick()")
  assert _text(page, "status").startswith("8 of 8 samples have the exporter's")
