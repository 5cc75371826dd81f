"""The ledger of broken images that a run replaced."""

import json

from etils import epath
import numpy as np

from mobilevit_jax.data import sources
from mobilevit_jax.data.bad_images import load
from mobilevit_jax.data.transforms import classify
from mobilevit_jax.run import bad_images
from tests import tiny_imagenet

TRANSFORM = classify.ClassifyTransform()
BROKEN = {2, 5, 11}


def test_ledger_lists_each_image_once(tmp_path):
  for number in range(12):
    image = tmp_path / "train" / "ab"[number // 6] / f"{number:02}.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    jpeg = tiny_imagenet.image(image.name)
    image.write_bytes(jpeg[:90] if number in BROKEN else jpeg)
  broken = sources.make_source("folder", "train", data_dir=tmp_path)
  path = epath.Path(tmp_path) / "bad_images.jsonl"

  def double(ids):  # another process that saw the same
    return np.concatenate([ids, ids])

  report = bad_images.Ledger(broken, TRANSFORM, path, double, count=7)
  assert report.update() == 7 and not path.exists()
  report.add(None)
  report.add(np.array([11, -1, -1, 2]))
  report.add(np.array([-1, 2, -1]))
  assert report.update() == report.update() == 7 + 2 * 3
  lines = path.read_text().splitlines()
  assert [json.loads(line)["id"] for line in lines] == [2, 11]
  stands_in = load(broken, TRANSFORM, 2, replace=True)
  first = json.loads(lines[0])
  assert first.pop("error").startswith(f"{first['file']}: cannot be decoded")
  assert first == {
    "id": 2,
    "file": broken[2].name,
    "record": None,
    "replacement": stands_in.example.id,
  }
  # A later start keeps what is known, and adds to it.
  again = bad_images.Ledger(broken, TRANSFORM, path, double, count=report.count)
  again.add(np.array([5, 11]))
  assert again.update() == 17
  kept = path.read_text().splitlines()
  assert [kept[0], kept[2]] == lines
  assert json.loads(kept[1])["id"] == 5
  # Only one process writes.
  other = bad_images.Ledger(broken, TRANSFORM, None, double)
  other.add(np.array([5]))
  assert other.update() == 2
