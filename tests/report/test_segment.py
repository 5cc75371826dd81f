"""What the report says of a segmenter, against the meter and plain loops."""

import base64
import types

import cv2
import numpy as np
import pytest

from mobilevit_jax.data import examples
from mobilevit_jax.report import markup
from mobilevit_jax.report import segment
from mobilevit_jax.tasks import segment as task

NAMES = ("ground", "<cat>", "dog", "bird")  # no pixel is a bird


class Source:
  """Images of 70 x 90 pixels, and masks with ignored pixels."""

  name, class_names = "drawn", NAMES

  def __init__(self, masks):
    self.masks = masks

  def __len__(self):
    return len(self.masks) + 1  # one is broken

  def __getitem__(self, index):
    image = np.full((70, 90, 3), 40 * index, np.uint8)
    return examples.Example(image, {}, index, str(index))

  def place(self, index):
    return f"/data/val/{index}.png", None

  def mask(self, index):
    return self.masks[index]


def _drawn(seed, count=5):
  """Masks, and what a net that errs more with each image finds in them."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 3, (count, 7, 9))
  masks = coarse.repeat(10, 1).repeat(10, 2).astype(np.uint8)
  found = masks.copy()
  for index in range(count):
    found[index, : 5 * index] = 0
  masks[:, :, -4:] = task.IGNORED
  return masks, found


def _predictions(masks, found, most=24):
  ids = np.arange(len(masks))
  batches = (slice(0, 2), slice(2, None))
  rows = [{"ids": ids[part], "classes": found[part]} for part in batches]
  source = Source(masks)
  run = types.SimpleNamespace(
    setup=types.SimpleNamespace(source=source),
    class_names=NAMES,
    rows=lambda: iter(rows),
  )
  meter = task.Confusion(source, len(NAMES))
  for one in rows:
    meter.add(one)
  return segment.Predictions(run, most), meter.result()


@pytest.mark.parametrize("seed", range(2))
def test_page_and_meter_agree(seed):
  found, expected = _predictions(*_drawn(seed))
  number, text = found.lead()
  assert number == f"{expected['miou']:.1%}"
  assert "3 classes in 5 images (1 broken ones were left out)" in text
  rows = {row[0]: row for row in found.sections()["Classes"]["rows"]}
  assert rows.keys() == {*NAMES[:3]}
  for name, row in rows.items():
    assert row[3] == expected[f"iou_{name}"]
  cards = {name: value for name, value, _ in found.cards()}
  assert cards["right pixels"] == f"{expected['pixel_accuracy']:.1%}"


def test_one_class_everywhere_is_no_better_than_guessing():
  masks, said = _drawn(0)
  assert "guessing" not in _predictions(masks, said)[0].lead()[1]
  share = (
    np.bincount(masks[masks != task.IGNORED]).max()
    / (masks != task.IGNORED).sum()
  )
  commonest = int(np.bincount(masks[masks != task.IGNORED]).argmax())
  found, _ = _predictions(masks, np.full_like(said, commonest))
  number, text = found.lead()
  assert number == f"{share / 3:.1%}"
  assert text.endswith(
    f" (no better than guessing: always saying {NAMES[commonest]} gives "
    f"{number})"
  )


def test_precision_and_recall_are_those_of_a_plain_count():
  masks, said = _drawn(3)
  found, _ = _predictions(masks, said)
  for label, row in enumerate(found.sections()["Classes"]["rows"]):
    counted = masks != task.IGNORED
    is_, was_said = (masks == label) & counted, (said == label) & counted
    both = (is_ & was_said).sum()
    assert row[2] == pytest.approx(is_.sum() / counted.sum())
    assert row[4:] == pytest.approx([both / was_said.sum(), both / is_.sum()])


def test_worst_images_come_first_and_no_more_than_asked_for():
  found, _ = _predictions(*_drawn(4), most=3)
  shown = found.sections()["Worst images"]
  places = [one["place"].short for one in shown["worst"]]
  assert places == ["val/4.png", "val/3.png", "val/2.png"]
  mious = [float(line[1]) for line in [*found.lines()][1:]]
  assert [one["miou"] for one in shown["worst"]] == pytest.approx(
    sorted(mious)[:3], abs=1e-6
  )
  assert mious[0] == 1
  assert shown["middle"] == pytest.approx(np.median(mious), abs=1e-6)


def _pixels(picture):
  data = base64.b64decode(picture.address.partition(",")[2])
  return cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1]


def test_pictures_show_truth_what_was_found_and_where_it_errs():
  masks, said = _drawn(5)
  found, _ = _predictions(masks, said, most=1)
  (one,) = found.sections()["Worst images"]["worst"]
  pictures = {name: _pixels(picture) for name, picture in one["pictures"]}
  assert {picture.shape for picture in pictures.values()} == {(70, 90, 3)}
  orange = (
    pictures["wrong"][..., 0].astype(int) - pictures["wrong"][..., 2] > 90
  )
  wrong = (masks[4] != said[4]) & (masks[4] != task.IGNORED)
  assert (orange == wrong).mean() > 0.95  # JPEG blurs edges
  plain = pictures["truth"].std(axis=2) < 12
  assert (plain == ((masks[4] == 0) | (masks[4] == 255))).mean() > 0.95


def test_names_are_escaped_and_absent_classes_counted():
  found, _ = _predictions(*_drawn(6))
  sections = found.sections()
  for title in sections:
    macro = title.split()[-1].lower()
    text = markup.macro("segment", macro, sections[title])
    assert "<cat>" not in text and "&lt;cat&gt;" in text
  text = markup.macro("segment", "classes", sections["Classes"])
  assert "Classes that neither occur nor were predicted: 1." in text


def test_an_image_that_is_ignored_whole_has_no_score():
  masks, said = _drawn(7, count=3)
  masks[1] = task.IGNORED
  found, expected = _predictions(masks, said)
  lines = [*found.lines()]
  assert lines[2][1:] == [""] * 5
  assert len(found.sections()["Worst images"]["worst"]) == 2
  assert found.lead()[0] == f"{expected['miou']:.1%}"


def test_no_image_is_an_error():
  masks, said = _drawn(0)
  with pytest.raises(ValueError, match="images of drawn are broken"):
    _predictions(masks[:0], said[:0])
