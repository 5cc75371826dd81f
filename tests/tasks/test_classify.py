"""Classification's loss, mixing, ranks and meter, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax.tasks import classify

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 7)).astype(np.float32) * 4
LABELS = RNG.integers(0, 7, 12)
B = 64


def _identity(rows):
  return rows


def _log_softmax(logits):
  wide = logits.astype(np.float64)
  return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_numpy(smoothing):
  log_p = _log_softmax(LOGITS)
  nll = -log_p[np.arange(12), LABELS]
  expected = (1 - smoothing) * nll - smoothing / 7 * log_p.sum(-1)
  actual = classify.cross_entropy(
    jnp.asarray(LOGITS), jnp.asarray(LABELS), label_smoothing=smoothing
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def _rows(logits, labels):
  """What `Classify.outputs` gives of a net with these logits."""
  batch = {"images": jnp.asarray(logits), "labels": jnp.asarray(labels)}
  outputs = classify.Classify().outputs(lambda images: images, batch)
  return {name: np.asarray(value) for name, value in outputs.items()}


def _result(rows, parts, order=None):
  """The meter's result of rows that come in parts, in some order."""
  meter = classify.Classify().meter(None)
  index = np.arange(len(rows["rank"])) if order is None else order
  for part in np.array_split(index, parts):
    meter.add({name: value[part] for name, value in rows.items()})
  meter.merge(_identity)
  return meter.result()


def test_metrics_equal_numpy():
  order = np.argsort(-LOGITS, axis=-1)
  result = _result(_rows(LOGITS, LABELS), 1)
  assert result["top1"] == (order[:, 0] == LABELS).mean()
  assert result["top5"] == (order[:, :5] == LABELS[:, None]).any(-1).mean()
  loss = -_log_softmax(LOGITS)[np.arange(12), LABELS].mean()
  assert result["loss"] == pytest.approx(loss, rel=1e-5)


def test_meter_is_exact_in_any_order_batch_and_split():
  rng = np.random.default_rng(1)
  rows = _rows(rng.normal(size=(999, 7)).astype(np.float32), np.arange(999) % 7)
  expected = _result(rows, 1)
  for parts in (2, 7, 999):
    assert _result(rows, parts, rng.permutation(999)) == expected
  # Three processes: each adds its own rows, all get the whole.
  shares = np.array_split(rng.permutation(999), 3)
  meters = [classify.Classify().meter(None) for _ in shares]
  for meter, share in zip(meters, shares[:2], strict=False):
    meter.add({name: value[share] for name, value in rows.items()})
  states = [
    {name: rows[name][share] for name in ("loss", "rank")} for share in shares
  ]

  def gather(values):  # the third process has no row of its own yet
    name = "loss" if values.dtype == np.float32 else "rank"
    return np.concatenate([state[name] for state in states])

  for meter in meters:
    meter.merge(gather)
    assert meter.result() == expected


def test_constant_and_broken_nets_are_not_right():
  labels = np.arange(4)
  constant = _result(_rows(np.zeros((4, 8), np.float32), labels), 1)
  assert constant["top1"] == 1 / 4  # class 0 comes first, and only once
  broken = _result(_rows(np.full((4, 8), np.nan, np.float32), labels), 1)
  assert broken["top1"] == broken["top5"] == 0


def test_balanced_weights_even_out_the_classes():
  labels = np.array([0] * 6 + [1] * 3 + [3])
  weights = np.array(classify.balanced_weights(labels, 4))
  counts = np.bincount(labels, minlength=4)
  np.testing.assert_allclose((weights * counts)[[0, 1, 3]], 10 / 3)
  assert weights[2] == 0
  np.testing.assert_allclose(weights[labels].mean(), 1)


def _mixed(**alphas):
  """Images that are their number everywhere, mixed: pixels and shares."""
  numbers = jnp.arange(B, dtype=jnp.float32)
  images = jnp.broadcast_to(numbers[:, None, None, None], (B, 20, 30, 3))
  alphas = {"mixup": 0.0, "cutmix": 0.0, **alphas}
  mixed, share = classify.mix(images, jax.random.key(0), **alphas)
  return np.asarray(mixed), np.asarray(share)


@pytest.mark.parametrize(
  "alphas",
  [
    {"mixup": 0.2},
    {"mixup": 1.0},
    {"cutmix": 1.0},
    {"mixup": 0.2, "cutmix": 1.0},
  ],
  ids=str,
)
def test_labels_have_the_shares_of_the_pixels(alphas):
  mixed, share = _mixed(**alphas)
  own, other = np.arange(B), np.roll(np.arange(B), 1)
  expected = share * own + (1 - share) * other
  np.testing.assert_allclose(mixed.mean((1, 2, 3)), expected, rtol=1e-4)
  assert share.min() >= 0 and share.max() <= 1
  assert np.ptp(share) > 0.5


def test_cutmix_pastes_one_box_and_mixup_blends_evenly():
  mixed, share = _mixed(cutmix=1.0)
  own = np.arange(B)[:, None, None]
  for inside, kept in zip(mixed[..., 0] != own, share, strict=True):
    rows, columns = inside.any(1), inside.any(0)
    np.testing.assert_array_equal(inside, rows[:, None] & columns)
    assert np.diff(np.flatnonzero(rows)).max(initial=1) == 1
    np.testing.assert_allclose(1 - kept, inside.mean(), atol=1e-6)
  mixed, _ = _mixed(mixup=1.0)
  assert np.ptp(mixed, axis=(1, 2, 3)).max() == 0


def test_a_batch_can_share_one_draw():
  own, other = np.arange(B)[:, None, None], np.roll(np.arange(B), 1)
  mixed, share = _mixed(cutmix=1.0, each="batch")
  assert share.shape == (B,) and np.ptp(share) == 0 and 0 < share[0] < 1
  inside = mixed[..., 0] != own
  assert (inside == inside[0]).all()
  np.testing.assert_allclose(1 - share[0], inside[0].mean(), atol=1e-6)
  mixed, share = _mixed(mixup=1.0, each="batch")
  expected = share * own[:, 0, 0] + (1 - share) * other
  np.testing.assert_allclose(mixed[:, 0, 0, 0], expected, rtol=1e-5)
  with pytest.raises(ValueError, match="mix_each='step' must be"):
    classify.Classify(mix_each="step")


def test_both_are_drawn_evenly():
  mixed, _ = _mixed(mixup=1.0, cutmix=1.0)
  blended = (mixed != np.round(mixed)).any(axis=(1, 2, 3))
  assert 0.3 < blended.mean() < 0.7


def test_shares_are_of_the_beta_distribution():
  # Beta(1, 1) is even; Beta(0.2, 0.2) lies at the ends.
  _, even = _mixed(mixup=1.0)
  _, ends = _mixed(mixup=0.2)
  assert 0.2 < np.mean((even > 0.25) & (even < 0.75)) < 0.8
  assert np.mean((ends > 0.25) & (ends < 0.75)) < 0.35


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_bad_alpha_is_refused(alpha):
  with pytest.raises(ValueError, match=f"cutmix={alpha} must be a number"):
    classify.Classify(cutmix=alpha)


def test_prediction_is_the_likeliest_classes_and_a_picture_of_the_first():
  task = classify.Classify()
  outputs = {"logits": np.log([0.2, 0.5, 0.3]).astype(np.float32)}
  found = task.describe(outputs, ["cat", "dog", "emu"], 2)
  assert [(e["class"], e["label"]) for e in found] == [(1, "dog"), (2, "emu")]
  np.testing.assert_allclose([e[task.score] for e in found], [0.5, 0.3], 1e-5)
  image = np.full((32, 32, 3), 7, np.uint8)
  picture = task.draw(image, outputs, ["cat", "dog", "emu"])
  np.testing.assert_array_equal(picture[:32, :32], image)
  assert picture[32:].min() < 100 < picture[32:].max()  # words on white


def test_weights_of_classes_need_labels_and_a_known_name():
  with pytest.raises(ValueError, match="class_weights='some' must be 'none'"):
    classify.make(None, 3, class_weights="some")
  with pytest.raises(ValueError, match="needs one class for each image"):
    classify.make(object(), 3, class_weights="balanced")
