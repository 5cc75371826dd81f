"""What the figures show."""

import json

import numpy as np
import pytest

from mobilevit_jax import visualize


def _texts(figure):
  return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_figures_show_what_they_are_given(image, maps, features, tmp_path):
  figure = visualize.plot_attention(maps, image, 40, 20)
  assert _texts(figure)[0] == "stage3, head 0"
  drawn = figure.axes[0].images[1].get_array()
  looks = maps["stage3"].of_pixel(40, 20)[-1, 0]
  # 40 // 8 = 5 and 20 // 8 = 2: the place is (1, 0); of 112 patches.
  np.testing.assert_allclose(drawn, looks[1::2, ::2] * 112, rtol=1e-6)
  assert len(_texts(figure)) == 3 * 4

  figure = visualize.plot_features(features, image, channels=2)
  channel = int(_texts(figure)[0].removeprefix("channel "))
  assert channel == features["stage1"].std(axis=(0, 1)).argmax()
  np.testing.assert_array_equal(
    figure.axes[1].images[0].get_array(), features["stage1"][..., channel]
  )

  fields = {"a": np.eye(4), "b": np.ones((4, 4)), "c": np.eye(4)}
  figure = visualize.plot_fields(fields, rows=2)
  assert _texts(figure) == ["a", "b", "c"]
  assert figure.axes[0].get_xlabel() == (
    "reaches 25.0% of the pixels;\n95 % comes from 25.0%"
  )
  np.testing.assert_array_equal(
    np.ma.getmaskarray(figure.axes[0].images[0].get_array()), np.eye(4) == 0
  )

  shares = np.array([0.1, 0.6, 0.3])
  figure = visualize.plot_classes(image, shares, ["cat", "dog", "fox"], top=2)
  bars = figure.axes[1]
  assert [text.get_text() for text in bars.get_yticklabels()] == ["dog", "fox"]
  assert [bar.get_width() for bar in bars.patches] == [0.6, 0.3]
  figure.savefig(tmp_path / "classes.png")
  assert (tmp_path / "classes.png").stat().st_size > 1000


def test_context_is_drawn_against_an_even_share(image):
  rng = np.random.default_rng(0)
  scores = {}
  for stage, layers, grid in (("stage3", 2, (4, 6)), ("stage4", 1, (2, 4))):
    shares = rng.random((layers, 4, grid[0] * grid[1] // 4))
    shares /= shares.sum(axis=-1, keepdims=True)
    scores[stage] = visualize.ContextScores(shares.astype(np.float32), grid)
  figure = visualize.plot_context(scores, image)
  assert _texts(figure) == [
    "stage3, layer 0",
    "stage3, layer 1",
    "stage4, layer 0",
  ]
  drawn = figure.axes[1].images[1].get_array()
  # Place 1 is the upper right pixel of a patch; six patches share evenly 1.
  np.testing.assert_allclose(
    drawn[::2, 1::2].ravel(), scores["stage3"].scores[1, 1] * 6, rtol=1e-5
  )
  assert not figure.axes[3].get_visible()


def test_taps_are_on_the_grid_and_those_outside_are_counted():
  figure = visualize.plot_taps(
    np.zeros((256, 256, 3)), {16: (6, 12), 8: (12, 24)}
  )
  first, second = figure.axes
  assert first.get_title() == "output stride 16: 16 x 16 pixels"
  assert first.get_xlabel() == "taps inside: 6: 9 of 9, 12: 1 of 9"
  assert second.get_xlabel() == "taps inside: 12: 9 of 9, 24: 1 of 9"
  taps = [line for line in second.lines if line.get_label() == "rate 12"]
  x = np.unique(taps[0].get_xdata())
  np.testing.assert_allclose(x, (16.5 + np.array([-12, 0, 12])) * 8)


def test_boxes_are_parts_of_the_image():
  image = np.zeros((100, 200, 3))
  boxes = {"one": [[0, 0.25, 0.5, 1]], "none": np.zeros((0, 4))}
  figure = visualize.plot_boxes(image, boxes)
  first, second = figure.axes
  assert [first.get_xlabel(), second.get_xlabel()] == ["1 boxes", "0 boxes"]
  x, y = first.lines[0].get_data()
  assert (min(x), max(x), min(y), max(y)) == (-0.5, 99.5, 24.5, 99.5)


def test_images_are_beside_each_other_with_their_titles():
  images = {str(i): np.full((4, 4, 3), i, np.uint8) for i in range(5)}
  figure = visualize.plot_images(images, columns=3)
  assert _texts(figure) == ["0", "1", "2", "3", "4"]
  assert [axes.get_visible() for axes in figure.axes] == [True] * 5 + [False]
  assert figure.axes[4].images[0].get_array()[0, 0, 0] == 4


def test_curves_are_those_of_the_run(tmp_path):
  train = [
    {
      "step": step,
      "kind": "train",
      "loss": None if step == 2 else 3.0 / step,
      "learning_rate": 1e-3 / step,
      "image_size": (32.0, 48.0, 32.0)[step - 1],
      "images_per_second": (160.0, 72.0, 320.0)[step - 1],
      "steps_per_second": (10.0, 9.0, 20.0)[step - 1],
    }
    for step in (1, 2, 3)
  ]
  evaluation = {"step": 3, "kind": "eval", "ema_top1": 0.5, "raw_top1": 0.25}
  lines = [json.dumps(record) for record in (*train, evaluation)]
  (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
  records = visualize.read_metrics(tmp_path)
  assert records == [*train, evaluation]

  loss, top1, rate = visualize.plot_curves(records).axes
  np.testing.assert_array_equal(loss.lines[0].get_ydata(), [3, np.nan, 1])
  tops = {line.get_label(): line.get_ydata().tolist() for line in top1.lines}
  assert tops == {"ema": [50.0], "raw": [25.0]}
  assert top1.get_title().startswith("top1 ")
  assert rate.lines[0].get_xdata().tolist() == [1, 2, 3]

  other = [{**r, "ema_iou": 0.4, "raw_iou": 0.2} for r in records]
  _, iou, _ = visualize.plot_curves(other, "iou").axes
  assert [line.get_ydata().tolist() for line in iou.lines] == [[40.0], [20.0]]

  order, often, speed = visualize.plot_sizes(records).axes
  assert order.lines[0].get_ydata().tolist() == [32, 48, 32]
  assert [bar.get_height() for bar in often.patches] == [2, 1]
  assert [text.get_text() for text in often.texts] == ["16 images", "8 images"]
  assert [bar.get_height() for bar in speed.patches] == [240, 72]


def test_no_run_is_one_clear_line(tmp_path):
  with pytest.raises(ValueError, match="holds no run: no metrics"):
    visualize.read_metrics(tmp_path)
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kind": "eval"}\n{"st')
  with pytest.raises(ValueError, match="a line is not a record"):
    visualize.read_metrics(tmp_path)
