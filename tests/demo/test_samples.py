"""The samples of docs/preprocessing.md give Python's levels.

JavaScript's are compared in `test_demo.py`, in a browser.
"""

import builtins
import math
import pathlib
import re
import struct
import types

import numpy as np
import pytest

from mobilevit_jax.data.transforms import presets
from mobilevit_jax.demo import folder

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "preprocessing.md"
CROP = {
  "resize": "crop",
  "shorter_side": 4,
  "size": 3,
  "interpolation": "bilinear",
  "antialias": False,
  "preset": "cvnets",
}
SMOOTH = CROP | {"antialias": True, "preset": "hf"}
HOWS = (CROP, SMOOTH, presets.stretch(3))


def _blocks(language):
  fence = rf"^```{language}\n(.*?)^```$"
  return re.findall(fence, PAGE.read_text(), re.MULTILINE | re.DOTALL)


def _python():
  found = {}
  exec(_blocks("python")[0], found)

  def prepare(image, how):
    return found["prepare"](image, how)

  return prepare


def _arguments(match):
  """`def name(a, b):` of a head of any number of lines, without types."""
  names = re.findall(r"(\w+): [\w\[\]]+", match[3])
  return f"{match[1]}def {match[2]}({', '.join(names)}):{match[4]}\n"


# Both languages, line by line, to Python. Blocks are indented already. What no
# row knows stays as it is, and Python refuses it.
_BOTH = (
  (r"//.*", ""),
  (r"^( *)(?:val|var|let) ", r"\1"),
  (r"^ *\}\n", ""),
  (r" \{$", ":"),
  (r"\b(how\.shorter_side)!", r"\1"),
  # Of whole numbers, where no double stands beside it.
  (r" / (2|min\()", r" // \1"),
)
_KOTLIN = (
  (r"^import .*\n", ""),
  (r"^class How\([^)]*\)\n", ""),
  (
    r"^( *)fun (\w+)\(([^)]*)\): \w+ = (.*)\n",
    lambda m: _arguments({1: m[1], 2: m[2], 3: m[3], 4: f" return {m[4]}"}),
  ),
  (
    r"^( *)fun (\w+)\(([^)]*)\): \w+ \{\n",
    lambda m: _arguments({1: m[1], 2: m[2], 3: m[3], 4: ""}),
  ),
  (r"for \((\w+) in (\w+)\.\.(\w+)\)", r"for \1 in range(\2, \3 + 1):"),
  (r"for \((\w+) in 0 until (.*?)\) ", r"for \1 in range(\2): "),
  (r"if \((.*)\) (?=\w)", r"if \1: "),
  (r"if \((.*)\) (?=\{)", r"if \1 "),
  (r"(\w+)\.toDouble\(\)", r"float(\1)"),
  (r"\.toInt\(\)", ""),  # of floor and ceil, whole in Python
  (r"(\w+)\.size\b(?<!how\.size)", r"len(\1)"),
  (r": \{", " {"),
)
_SWIFT = (
  (r"^import .*\n", ""),
  (r"^struct How[^}]*\}\n", ""),
  (
    r"^( *)func (\w+)\(([^)]*)\) -> \[Double\] \{\n",
    lambda m: _arguments({1: m[1], 2: m[2], 3: m[3].replace("_ ", ""), 4: ""}),
  ),
  (r"for (\w+) in (\w+)\.\.\.(\w+) ", r"for \1 in range(\2, \3 + 1) "),
  (r"for (\w+) in 0\.\.<(.*?) (?=\{)", r"for \1 in range(\2) "),
  (r" \{ (.*) \}$", r": \1"),
  (r"\[Double\]\(repeating: 0, count: (.*)\)", r"[0.0] * (\1)"),
  (r"(\w+)\.count\b", r"len(\1)"),
  (r"(levels\[i\])\.rounded\(\)", r"round(\1)"),
)


def _translated(code, rows):
  for pattern, by in (*rows, *_BOTH):
    code = re.sub(pattern, by, code, flags=re.MULTILINE)
  known = {
    "ByteArray": bytearray,
    "Double": float,
    "DoubleArray": lambda count: [0.0] * count,
    "Int": int,
    "String": lambda data: data.decode(),
    "ceil": math.ceil,
    "floor": math.floor,
    "precondition": _require,
    "require": _require,
  }
  exec(compile(code, "sample", "exec"), found := {**vars(builtins), **known})
  return found


def _require(condition):
  assert condition


def _of(functions):
  def prepare(image, how):
    told = types.SimpleNamespace(**{"shorter_side": None, **how})
    told.shorterSide = told.shorter_side
    height, width = image.shape[:2]
    levels = image.ravel().astype(float).tolist()
    found = functions["prepare"](levels, width, height, told)
    return np.reshape(found, (how["size"], how["size"], 3))

  return prepare


SAMPLES = {
  "Python": _python,
  "Kotlin": lambda: _of(_translated(_blocks("kotlin")[0], _KOTLIN)),
  "Swift": lambda: _of(_translated(_blocks("swift")[0], _SWIFT)),
}


@pytest.mark.parametrize("language", SAMPLES)
def test_a_sample_gives_the_tables_numbers(language):
  prepare = SAMPLES[language]()
  y, x = np.mgrid[:5, :7]
  image = np.stack([np.uint8((37 * x + 91 * y) % 256)] * 3, axis=-1)
  rows = re.findall(
    r"^\| [`t].* \| ([\d ]+) \|$", PAGE.read_text(), re.MULTILINE
  )
  assert len(rows) == len(HOWS)
  for row, how in zip(rows, HOWS, strict=True):
    # The table itself is what evaluation computes.
    levels = folder.prepare(image, how)[..., 0].ravel().tolist()
    assert " ".join(map(str, levels)) == row
    found = prepare(image, how)[..., 0].ravel()
    np.testing.assert_allclose(found, levels, atol=1)


@pytest.mark.parametrize("language", SAMPLES)
def test_a_sample_gives_pythons_levels(language):
  prepare = SAMPLES[language]()
  rng = np.random.default_rng(0)
  hows = (
    presets.Crop(size=12).preprocessing(),
    presets.Crop("hf", 11).preprocessing(),
    presets.stretch(9),
  )
  for shape in ((31, 47), (52, 23), (9, 10), (27, 27)):
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    for how in hows:
      found, expected = prepare(image, how), folder.prepare(image, how)
      np.testing.assert_allclose(found, expected, atol=1.01)
  with pytest.raises(AssertionError):
    prepare(image, how | {"interpolation": "bicubic"})


class _Buffer:
  """What the sample asks of Java's ByteBuffer."""

  def __init__(self, data):
    self._data = data

  def order(self, which):
    assert which == "<"

  def get(self, at):
    return self._data[at]

  def getInt(self, at):  # noqa: N802
    return struct.unpack_from("<i", self._data, at)[0]

  def getShort(self, at):  # noqa: N802
    return struct.unpack_from("<h", self._data, at)[0]


@pytest.mark.export
def test_kotlin_finds_the_metadata_in_a_file():
  pytest.importorskip("ai_edge_litert.interpreter")
  from mobilevit_jax.export.litert import flatbuffer

  file = flatbuffer.LiteRTFile()
  images = file.tensor((1, 2), "FLOAT32", "images")
  data = file.serialize({"images": images}, '{"format": 1}')
  code = _blocks("kotlin")[1].replace("ByteOrder.LITTLE_ENDIAN", '"<"')
  assert (
    _translated(code, _KOTLIN)["metadata"](_Buffer(data)) == '{"format": 1}'
  )
