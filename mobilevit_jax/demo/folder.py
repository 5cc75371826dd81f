"""A folder that any web server can serve: page, file, samples, engines."""

from collections.abc import Callable, Iterator, Sequence
import json
import pathlib
import tempfile
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mobilevit_jax.data import augment
from mobilevit_jax.data import examples
from mobilevit_jax.data import sources
from mobilevit_jax.data.sources import files as image_files
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.demo import engines
from mobilevit_jax.export import __main__ as export
from mobilevit_jax.export import formats
from mobilevit_jax.export import metadata
from mobilevit_jax.export import nms
from mobilevit_jax.export import verify
from mobilevit_jax.weights import io
from mobilevit_jax.weights.source import read_weights

PAGE = pathlib.Path(__file__).parent / "page"
SAMPLES = 8
_LONGEST = 640  # pixels of a sample's longer side: enough for a page

# By head, what a run is exported to answer with.
_OUTPUTS = {"classifier": "probabilities", "deeplabv3": "mask"}
Answer = dict[str, Any]


def write(
  source: str,
  into: pathlib.Path,
  *,
  images: Sequence[pathlib.Path] | examples.Source | None = None,
  size: int | None = None,
  every_engine: bool = False,
  title: str | None = None,
) -> list[str]:
  """Fills an empty folder.

  Args:
    source: an exported .onnx or .tflite file, or what `load_weights` takes,
      such as a run's workdir, which is exported to ONNX.
    into: the folder.
    images: samples, files and folders of them or a source; by default of the
      images that a run was evaluated on, or else coloured squares.
    size: image side of weights that are exported, in pixels; by default a
      run's own.
    every_engine: links all engines, for files that are opened in the page; else
      copies the one that runs the file.
    title: of the page; by default the model's name.

  Returns:
    Lines to print.

  Raises:
    ValueError, OSError: if anything can't be read, exported or written.
  """
  engines.check()
  name, content, config = _content(source, size)
  # --- The model, and the document that says how it wants its images.
  kind = _format_of(name)
  text = formats.FORMATS[kind].metadata(content)
  document = metadata.read(text, source)
  (into / "samples").mkdir()
  (into / name).write_bytes(content)
  for path in PAGE.iterdir():
    (into / path.name).write_bytes(path.read_bytes())
  # Linked where the folder is temporary: 60 MB need not be copied.
  if every_engine:
    (into / "engines").symlink_to(engines.FOLDER)
  else:
    engines.copy(into / "engines", kind)
  # --- Samples, each with what Python's engine answers: the page shows both.
  samples, found = [], _samples(images, config, document)
  look = answers(content, kind)
  for index, (sample, pixels) in enumerate(found):
    # The answer belongs to the pixels that the page gets, so images shrink
    # first.
    file = f"samples/{index}.png"
    pixels = _smaller(pixels)
    Image.fromarray(pixels).save(into / file)
    entry: dict[str, Any] = {"file": file, "name": sample}
    if document["task"] != "features":
      entry["answer"] = look(pixels)
      if "mask" in entry["answer"]:
        mask, place = entry["answer"]["mask"], f"samples/{index}.mask.png"
        Image.fromarray(mask).save(into / place)
        entry["answer"]["mask"] = place
    samples.append(entry)
  # --- What the page reads first.
  about = {
    "title": title or f"{document['model']} in this browser",
    "model": name,
    "samples": samples,
    "producer": document["producer"],
  }
  text = json.dumps(about, ensure_ascii=False, indent=1)
  (into / "demo.json").write_text(text)
  return [
    f"{name}: {document['model']}, {document['task']}, "
    f"{document['precision']}, {len(content) / 1e6:.1f} MB",
    f"{len(samples)} samples, with this file's answers in Python",
  ]


def _format_of(name: str) -> str:
  # One of the two, see `_content`.
  return "litert" if name.endswith(".tflite") else "onnx"


def _content(
  source: str, size: int | None
) -> tuple[str, bytes, dict[str, Any] | None]:
  """A file's name and bytes, and the configuration of a run.

  Of weights, those of the ONNX file that they become.
  """
  path = pathlib.Path(source)
  if path.suffix in (".onnx", ".tflite"):
    if size is not None:
      raise ValueError(f"--size={size}: {source} has the size that it has")
    return f"model{path.suffix}", path.read_bytes(), None
  if path.suffix in (".zip", ".mlpackage"):
    raise ValueError(
      f"{source}: browsers run .onnx and .tflite files; export one, or give "
      "the run's workdir"
    )
  found = read_weights(source)
  output = _OUTPUTS.get(io.find_model(found).get("head", "classifier"))
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / "model.onnx"
    # By the command itself, which verifies the file.
    command = [f"--weights={source}", "--format=onnx", f"--out={out}"]
    command += [f"--output={output}"] if output else []
    command += [f"--size={size}"] if size else []
    if export.main(command):
      # It has printed why.
      raise ValueError(f"{source} could not be exported to ONNX")
    return out.name, out.read_bytes(), found.config


def _samples(
  images: Sequence[pathlib.Path] | examples.Source | None,
  config: dict[str, Any] | None,
  document: dict[str, Any],
) -> Iterator[tuple[str, np.ndarray]]:
  """Names and pixels of some images, at most `SAMPLES`."""
  if isinstance(images, Sequence):
    images = image_files.FileSource(image_files.find_images(images))
  if images is not None:
    yield from _spread(images)
    return
  if config is not None:
    data = config["data"]
    try:
      source = sources.make_source(
        data["name"], data["eval_split"], data_dir=data["dir"], prepare=False
      )
    except (ValueError, OSError) as error:
      print(f"demo: the run's own images can't be opened ({error});", end=" ")
      print("coloured squares instead, or those that --images names")
    else:
      yield from _spread(source)
      return
  # Without images of its own a file is shown the squares it was verified on.
  squares = verify.built_in_images(document["preprocessing"]["size"], SAMPLES)
  for index, image in enumerate(squares):
    yield f"squares {index + 1}", image


def _spread(source: examples.Source) -> Iterator[tuple[str, np.ndarray]]:
  """Images evenly spread over a source; broken ones are left out."""
  # Evenly spread: a source may be sorted by class.
  count = min(len(source), SAMPLES)
  for place in range(count):
    try:
      example = source[place * len(source) // count]
      pixels = augment.decode(example.image, example.name)
    except examples.ImageError as error:
      print(f"demo: {error}")
      continue
    yield pathlib.PurePath(example.name).name, pixels


def _smaller(pixels: np.ndarray) -> np.ndarray:
  height, width = pixels.shape[:2]
  scale = _LONGEST / max(height, width)
  if scale >= 1:
    return np.ascontiguousarray(pixels)
  # Never 0, for images of odd shapes; INTER_AREA is the filter for shrinking.
  size = max(round(width * scale), 1), max(round(height * scale), 1)
  return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def prepare(pixels: np.ndarray, how: dict[str, Any]) -> np.ndarray:
  """What the net sees of uint8 `[h, w, 3]`, by a file's "preprocessing"."""
  if how["resize"] == "stretch":
    return cv2.resize(pixels, (how["size"], how["size"]))
  return presets.preprocess(
    pixels, how["preset"], how["size"], resize_size=how["shorter_side"]
  )


def answers(content: bytes, kind: str) -> Callable[[np.ndarray], Answer]:
  """What a file answers in Python's engine to images, uint8 `[h, w, 3]`.

  Answers are as the page has them (`answers.js`): `probabilities`, a `mask`
  (uint8 `[h, w]`), or `detections` of `box`, `score` and `label`.

  Args:
    content: of the file.
    kind: its format, `"onnx"` or `"litert"`.
  """
  row = formats.FORMATS[kind]
  document = metadata.read(row.metadata(content), "the file")
  assert row.engine is not None  # of both formats
  engine, about = row.engine(content), document["input"]

  def look(pixels: np.ndarray) -> Answer:
    seen = prepare(pixels, document["preprocessing"])
    # A fixed batch is filled up with zeros; only the first row is read.
    images = np.zeros((about["shape"][0] or 1, *seen.shape), about["type"])
    images[0] = seen if about["type"] == "uint8" else seen / np.float32(255)
    answer = {name: rows[0] for name, rows in engine(images).items()}
    task = document["task"]
    if task == "classify":
      if "logits" in answer:
        # Softmax; the largest is taken off, so that no power overflows.
        powers = np.exp(answer["logits"].astype(float) - answer["logits"].max())
        answer["probabilities"] = powers / powers.sum()
      return {"task": task, "probabilities": answer["probabilities"].tolist()}
    if task == "segment":
      if "logits" in answer:
        answer["mask"] = answer["logits"].argmax(-1)
      return {"task": task, "mask": answer["mask"].astype(np.uint8)}
    return {"task": task, "detections": _detections(answer, document["nms"])}

  return look


def _detections(
  answer: dict[str, np.ndarray], how: dict[str, Any]
) -> list[dict[str, Any]]:
  if how["in_file"]:
    # Files that suppress answer in fixed shapes, with scores of 0 at the end.
    kept = answer["scores"] > 0
    found = [answer[name][kept] for name in ("boxes", "scores", "classes")]
  else:
    # Else by `nms.py`, with the thresholds that the file's document names.
    fields = {name: how[name] for name in how if name != "in_file"}
    found = nms.suppress(
      answer["boxes"], answer["scores"], nms.Suppression(**fields)
    )
  return [
    {"box": box.tolist(), "score": float(score), "label": int(label)}
    for box, score, label in zip(*found, strict=True)
  ]
