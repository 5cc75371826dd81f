"""A TFDS set with boxes, as coco and voc have them, from files made here."""

import cv2
import numpy as np
import pytest

from mobilevit_jax.data import sources
from mobilevit_jax.data.boxes import Boxed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A data set's folder, in TFDS's format, with features as coco/2017 has."""
  import tensorflow_datasets as tfds

  root = tmp_path_factory.mktemp("tfds")
  pixels = np.full((30, 40, 3), 90, np.uint8)
  jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
  (root / "a.jpg").write_bytes(jpeg)

  class Shapes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "image/filename": tfds.features.Text(),
        "image/id": np.int64,
        "objects": tfds.features.Sequence(
          {
            "area": np.int64,
            "bbox": tfds.features.BBoxFeature(),
            "is_crowd": np.bool_,
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
          }
        ),
      }
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      box = tfds.features.BBox(0.2, 0.1, 0.8, 0.5)  # ymin, xmin, ymax, xmax
      one = {"area": 7, "bbox": box, "is_crowd": False, "label": 1}
      for index, objects in enumerate(([one, {**one, "is_crowd": True}], [])):
        yield (
          index,
          {
            "image": str(root / "a.jpg"),
            "image/filename": f"{index}.jpg",
            "image/id": 40 + index,
            "objects": objects,
          },
        )

  builder = Shapes(data_dir=root, file_format="array_record")
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
  )
  return builder


def test_boxes_come_back_in_pixels(folder):
  from mobilevit_jax.data.sources import tfds

  source = tfds.open_prepared("shapes", "train", folder.data_path)
  assert isinstance(source, Boxed)
  with pytest.raises(ValueError, match="no one class for each image"):
    source.labels()
  assert source.class_names == ("cat", "dog")
  by_id = {source.image_id(index): index for index in range(len(source))}
  assert by_id.keys() == {40, 41}
  target = source[by_id[40]].target
  np.testing.assert_allclose(target["boxes"], [[4, 6, 20, 24]] * 2, atol=1e-5)
  assert target["classes"].tolist() == [1, 1]
  assert target["crowd"].tolist() == [False, True]
  assert target["area"].tolist() == [7, 7]
  assert source.truth(by_id[41]).boxes.shape == (0, 4)


@pytest.mark.parametrize("name", ("coco/2017", "voc/2007"))
def test_the_real_sets_have_features_of_that_kind(name):
  from mobilevit_jax.data.prepare import download
  from mobilevit_jax.data.sources import tfds

  features = tfds.make_builder(name, None).info.features
  assert download.has_boxes(features)
  download.check_features(name, features)
  with pytest.raises(ValueError, match="must be prepared"):
    sources.make_source(name, "train", data_dir="/nowhere", prepare=False)
