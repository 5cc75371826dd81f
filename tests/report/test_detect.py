"""What the report says of a detector, on boxes drawn by hand."""

import types

import numpy as np
import pytest

from mobilevit_jax.data import boxes
from mobilevit_jax.data import examples
from mobilevit_jax.report import detect
from mobilevit_jax.report import markup
from mobilevit_jax.tasks import average_precision
from mobilevit_jax.tasks import detect as task

pytest.importorskip("pycocotools")

NAMES = ("<cell>", "dot", "absent")
# x0, y0, x1, y1, class, crowd; images of 100 x 200 pixels.
TRUTH = (
  [(0, 0, 40, 40, 0, 0), (100, 0, 140, 40, 0, 0), (60, 60, 80, 80, 1, 0)],
  [(0, 0, 100, 100, 0, 0), (120, 0, 200, 100, 0, 1)],
  [],
)
# The same with a score in place of the crowd.
FOUND = (
  # A right box; one of the wrong class; one too unsure to be shown.
  [(0, 0, 40, 40, 0, 0.9), (60, 60, 80, 80, 0, 0.5), (60, 60, 80, 80, 1, 0.2)],
  # A right one, its double, and one on the crowd, which counts neither way.
  [(2, 0, 100, 98, 0, 0.8), (0, 4, 90, 100, 0, 0.7), (120, 0, 199, 99, 0, 0.6)],
  [],
)


class Source:
  """Three images, and a broken one."""

  name, class_names, category_ids = "drawn", NAMES, (1, 2, 3)

  def __len__(self):
    return 4

  def __getitem__(self, index):
    image = np.full((100, 200, 3), 90, np.uint8)
    return examples.Example(image, {}, index, str(index))

  def place(self, index):
    return f"/data/val/{index}.png", None

  def truth(self, index):
    return boxes.make_boxes(TRUTH[index])


def _rows():
  most = max(map(len, FOUND))
  table = np.zeros((len(FOUND), most, 6))
  for index, found in enumerate(FOUND):
    table[index, : len(found)] = np.array(found).reshape(-1, 6)
  return {
    "ids": np.arange(len(FOUND)),
    "sizes": np.tile((100, 200), (len(FOUND), 1)),
    "boxes": table[..., :4] / (200, 100, 200, 100),
    "classes": table[..., 4].astype(np.int32),
    "scores": table[..., 5].astype(np.float32),
  }


@pytest.fixture(scope="module")
def found():
  rows = _rows()
  return detect.Predictions(
    types.SimpleNamespace(
      setup=types.SimpleNamespace(source=Source(), task=task.Detect(3)),
      class_names=NAMES,
      rows=lambda: (
        [
          {k: v[:1] for k, v in rows.items()},
          {k: v[1:] for k, v in rows.items()},
        ]
      ),
    ),
    most_mistakes=1,
  )


def test_numbers_are_the_meters(found):
  meter = average_precision.AveragePrecision(Source())
  meter.add(_rows())
  expected = meter.result()
  assert found.lead()[0] == f"{expected['map']:.1%}"
  assert found.numbers == {k: expected[k] for k in average_precision.NAMES}
  rows = {row[0]: row for row in found.sections()["Classes"]["rows"]}
  for name in NAMES[:2]:
    assert rows[name][3] == pytest.approx(expected[f"ap_{name}"])
  sizes = {row[0]: row[2:] for row in found.sections()["Sizes"]["rows"]}
  assert [one[0] for one in sizes.values()] == [1, 2, 1]
  assert sizes["medium"][1] == expected["map_medium"]


def test_shown_boxes_are_tallied_by_image_and_class(found):
  head, *lines = found.lines()
  assert head == ["name", "objects", "found", "missed", "wrong"]
  assert [line[1:] for line in lines] == [
    [3, 1, 2, 1],  # the dot's right box is too unsure
    [1, 1, 0, 1],  # the crowd is no object, and its box not wrong
    [0, 0, 0, 0],
  ]
  rows = found.sections()["Classes"]["rows"]
  assert [row[0] for row in rows] == [*NAMES[:2]]
  assert rows[0][6:] == [2 / 3, 2 / 4] and rows[1][6:] == [0, None]
  cards = {name: value for name, value, _ in found.cards()}
  assert cards["objects found"] == "50.0%" and cards["boxes right"] == "50.0%"


def test_scores_of_shown_boxes_are_held_against_what_is_right(found):
  shown = sorted(zip(found.sure.tolist(), found.right.tolist(), strict=True))
  assert [right for _, right in shown] == [False, False, True, True]
  content = found.sections()["Calibration"]
  assert content["sure"] == pytest.approx((0.9 + 0.5 + 0.8 + 0.7) / 4)
  assert content["right"] == 0.5 and content["verdict"] == "too sure"
  assert content["ece"] == pytest.approx((0.1 + 0.5 + 0.2 + 0.7) / 4)


def test_worst_images_come_first_and_no_more_than_asked_for(found):
  content = found.sections()["Worst images"]
  assert content["flawed"] == 2 and content["total"] == 3
  assert [one["place"].short for one in content["worst"]] == ["val/0.png"]
  assert [name for name, _ in content["worst"][0]["pictures"]] == [
    "truth",
    "found",
  ]
  text = markup.macro("detect", "images", content)
  assert "<b>2</b> of 3 objects missed" in text
  assert "of 2 boxes wrong" in text


def test_curves_are_those_of_pycocotools(found):
  means, classes = found.sections()["Precision and recall"]["charts"]
  assert [name for name, _ in means.legend] == ["0.50", "0.75", "0.50 to 0.95"]
  assert [name for name, _ in classes.legend] == [*NAMES[:2]]
  # Two of three cells are found before the first wrong box: all precise so far.
  ends = [shape.title for shape in classes.shapes if shape.element == "circle"]
  assert ends == ["<cell>: 0.0% at recall 100%", "dot: 100.0% at recall 100%"]


def test_names_are_escaped_in_every_section(found):
  for title, content in found.sections().items():
    text = markup.macro("detect", title.split()[-1].lower(), content)
    assert "<cell>" not in text
  text = markup.macro("detect", "classes", found.sections()["Classes"])
  assert "Classes that neither occur nor were found: 1." in text


def test_a_net_that_shows_no_box_is_said():
  rows = {k: v for k, v in _rows().items() if k != "scores"}
  rows["scores"] = np.zeros((3, 3), np.float32)
  nothing = detect.Predictions(
    types.SimpleNamespace(
      setup=types.SimpleNamespace(source=Source(), task=task.Detect(3)),
      class_names=NAMES,
      rows=lambda: iter([rows]),
    )
  )
  content = nothing.sections()["Calibration"]
  text = markup.macro("detect", "calibration", content)
  assert "No box has a score of at least 0.3." in text
  assert nothing.lead()[0] == "0.0%"
  assert [line[3] for line in [*nothing.lines()][1:]] == [3, 1, 0]
