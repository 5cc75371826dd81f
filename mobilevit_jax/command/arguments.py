"""What the commands that load JAX take.

Their parsers are here and not with what they do, so that `--help` and a word
that is spelt wrong need not wait for JAX. Nothing else of ours is imported: a
test compares the words that are allowed with the tables that they stand for.
"""

import argparse
from collections.abc import Callable
import pathlib

# Words are repeated here, not imported: their tables are in modules that load
# JAX. tests/command/test_command.py compares the two.
_DIALECTS = ("jax", "timm", "hf", "cvnets", "cvnets_v02")
_FORMATS = ("stablehlo", "litert", "onnx", "coreml")
_PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8")
_ATTENTION = ("int8", "float")
_PRESETS = ("cvnets", "timm", "hf")
_PROTOCOLS = ("stretch", "aspect", "slide")
_WHICH = ("auto", "ema", "raw", "best")


def predict() -> argparse.ArgumentParser:
  """Of `mobilevit_jax.predict`."""
  parser = argparse.ArgumentParser(
    prog="mobilevit predict",
    description="Prints the likeliest classes of images.",
  )
  add = parser.add_argument
  add("images", metavar="IMAGE", nargs="+", type=pathlib.Path)
  add("--weights", required=True, help="file, folder, hf://owner/name, workdir")
  add("--variant", help="xxs, xs or s, to insist on")
  add("--which", choices=_WHICH, default="auto")
  add("--preset", choices=_PRESETS)
  add("--size", type=int, help="image side in pixels")
  text = (
    "of a segmenter: stretch to a square, keep the aspect, or slide a window"
  )
  add("--protocol", choices=_PROTOCOLS, help=text)
  add("--batch", type=int, default=32)
  add("--top", type=int, default=5, help="classes to print")
  add("--labels", help="file of class names, or tfds:NAME")
  add("--json", action="store_true", help="one object a line")
  text = "write a picture of each image with what is seen in it"
  add("--draw", type=pathlib.Path, metavar="FOLDER", help=text)
  text = "write a detector's boxes in COCO's format of results"
  add("--coco", type=pathlib.Path, metavar="FILE", help=text)
  return parser


def export() -> argparse.ArgumentParser:
  """Of `mobilevit_jax.export`."""
  parser = argparse.ArgumentParser(
    prog="mobilevit export",
    description="Exports a MobileViT, verified in the format's own engine.",
  )
  add = parser.add_argument
  add("--weights", required=True, help="file, folder, hf://owner/name, workdir")
  add("--variant", help="xxs, xs or s, to insist on")
  add("--which", choices=_WHICH, default="auto")
  add("--size", type=int, help="image side in pixels")
  add("--output_stride", type=int, help="32, 16 or 8")
  add("--format", choices=_FORMATS, required=True)
  add("--precision", choices=_PRECISIONS, default="fp32")
  add("--out", type=pathlib.Path, required=True)
  add("--force", action="store_true", help="replace OUT")
  add(
    "--input",
    choices=("float32", "uint8"),
    default="float32",
    help="RGB images: float32 in [0, 1], or uint8 pixels",
  )
  what = parser.add_mutually_exclusive_group()
  what.add_argument(
    "--output",
    help="logits or probabilities; of a segmenter logits or mask; of a "
    "detector boxes, which has their scores too",
  )
  what.add_argument(
    "--features", action="store_true", help="the five stages, for a backbone"
  )
  add(
    "--nms",
    action="store_true",
    help="of a detector in ONNX: suppress overlapping boxes in the file",
  )
  add("--batch", help="images at a time, or 'any'")
  add("--labels", help="file of class names, or tfds:NAME")
  add(
    "--verify_images",
    nargs="+",
    type=pathlib.Path,
    metavar="IMAGE_OR_FOLDER",
    help="what to compare with JAX on; by default 64 of the calibration's, "
    "or else coloured squares",
  )
  add(
    "--calibration_images",
    nargs="+",
    type=pathlib.Path,
    metavar="IMAGE_OR_FOLDER",
    help="for int8, a few hundred images of the training set, never of those "
    "that the file is judged on; by default 256 of the run's own",
  )
  add(
    "--attention",
    choices=_ATTENTION,
    help="for int8, the type of attention's products",
  )
  add(
    "--layer_errors",
    type=int,
    default=0,
    metavar="N",
    help="for int8, print the N layers that cost most (a minute or more): the "
    "relative error of the outputs with that layer alone in eight bits",
  )
  add("--preset", choices=_PRESETS)
  return parser


def report() -> argparse.ArgumentParser:
  """Of `mobilevit_jax.report`."""
  parser = argparse.ArgumentParser(
    prog="mobilevit report",
    description="Writes a run's report as one HTML file.",
  )
  parser.add_argument("workdir", metavar="WORKDIR")
  parser.add_argument(
    "--which",
    choices=_WHICH,
    default="auto",
    help="weights; auto: the best of a run that stops early, else the EMA",
  )
  parser.add_argument("--data_dir", help="where the data is, if it was moved")
  parser.add_argument(
    "--mistakes", type=int, default=24, help="pictures; default: %(default)s"
  )
  return parser


def weights() -> argparse.ArgumentParser:
  """Of `mobilevit_jax.weights`."""
  parser = argparse.ArgumentParser(
    prog="mobilevit weights",
    description="Converts MobileViT weights between the published dialects.",
  )
  parser.add_argument(
    "input", metavar="IN", help="file, folder, hf://, workdir"
  )
  parser.add_argument(
    "output",
    metavar="OUT",
    type=pathlib.Path,
    help=".safetensors, .npz, or a folder with --to=hf or hub",
  )
  parser.add_argument("--to", choices=(*_DIALECTS, "hub"), required=True)
  parser.add_argument(
    "--which",
    choices=_WHICH,
    default="auto",
    help="of a run's workdir; auto: best if it stops early, else ema",
  )
  text = "for --to=hub: what the card states, such as apache-2.0"
  parser.add_argument("--license", help=text)
  text = "for --to=hub: upload the folder to the Hub, private at first"
  parser.add_argument("--push", metavar="OWNER/NAME", help=text)
  text = "store half of the bytes: the values are rounded"
  parser.add_argument("--float16", action="store_true", help=text)
  parser.add_argument("--force", action="store_true", help="replace OUT")
  return parser


def summary() -> argparse.ArgumentParser:
  """Of `mobilevit_jax.summary`."""
  parser = argparse.ArgumentParser(
    prog="mobilevit summary",
    description="Prints a net's layers, parameters and multiply-adds.",
  )
  parser.add_argument("--variant", default="s", help="short or full name")
  parser.add_argument("--size", type=int, default=256, help="height in pixels")
  parser.add_argument("--width", type=int, help="where it isn't the height")
  parser.add_argument("--num_classes", type=int, default=1000)
  parser.add_argument("--output_stride", type=int, default=32)
  return parser


def models() -> argparse.ArgumentParser:
  """Of `mobilevit_jax.models`."""
  parser = argparse.ArgumentParser(
    prog="mobilevit models",
    description="Lists the nets: parameters, multiply-adds, published top-1.",
  )
  text = "short or full; default: all, in half a minute"
  parser.add_argument("names", metavar="NAME", nargs="*", help=text)
  parser.add_argument("--size", type=int, default=256, help="height in pixels")
  return parser


# `data`, `train` and `eval` parse by themselves: their arguments depend on a
# sub-command, or on the configuration.
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
  "export": export,
  "models": models,
  "predict": predict,
  "report": report,
  "summary": summary,
  "weights": weights,
}
