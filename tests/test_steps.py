import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobilevit_jax import models
from mobilevit_jax import optim
from mobilevit_jax import steps
from mobilevit_jax.run import sharding
from mobilevit_jax.tasks import losses
from mobilevit_jax.tasks import mix as mix_lib
from tests import tiny

BATCH = 16
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, BATCH, 16, 16, 3), np.uint8)
LABELS = RNG.integers(0, 4, (10, BATCH), np.int32)


def _recipe(**fields):
  schedule = optim.warmup_cosine(
    epoch_starts=[0], num_steps=100, warmup_steps=5, cosine_unit="step"
  )
  defaults = {
    "optimizer": optim.adamw(schedule),
    "schedule": schedule,
    "ema_momentum": functools.partial(optim.ema_momentum, momentum=0.1),
    "label_smoothing": 0.1,
  }
  return steps.Recipe(**(defaults | fields))


def _build(layout=None, recipe=None, **fields):
  """A jitted train step and its first state."""
  layout = layout or sharding.Layout(jax.devices()[:1])
  recipe = recipe or _recipe()
  model = tiny.net(**fields)
  graphdef, *weights = steps.split(model)
  state = layout.replicate(steps.init_state(*weights, recipe.optimizer))
  step = functools.partial(steps.train_step, graphdef=graphdef, recipe=recipe)
  return jax.jit(step, out_shardings=layout.replicated), state, graphdef


def _train(num_steps, layout=None, recipe=None, **fields):
  layout = layout or sharding.Layout(jax.devices()[:1])
  step, state, _ = _build(layout, recipe, **fields)
  history = []
  for images, labels in zip(IMAGES[:num_steps], LABELS, strict=False):
    batch = layout.put_batch({"images": images, "labels": labels})
    state, metrics = step(state, **batch)
    history.append({name: float(value) for name, value in metrics.items()})
  return state, history


def _assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.smoke
def test_step_is_gradient_optimizer_and_averages():
  recipe = _recipe()
  step, state, graphdef = _build(recipe=recipe)
  new, metrics = step(state, IMAGES[0], LABELS[0])

  def loss_fn(params):
    model = steps.merge(graphdef, params, state.batch_stats)
    logits = model(jnp.asarray(IMAGES[0]) / 255, train=True)
    loss = losses.cross_entropy(logits, LABELS[0], label_smoothing=0.1)
    return jnp.mean(loss), steps.split(model)[2]

  (loss, stats), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
    state.params
  )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  close(metrics["loss"], loss)
  close(metrics["grad_norm"], optax.tree.norm(grads))
  close(metrics["learning_rate"], 2e-4)
  jax.tree.map(close, new.batch_stats, stats)
  # Adam's first update is the sign of the gradient, whatever its size, which
  # is why the gradient's own moment is compared.
  moments = optax.tree.get(new.opt_state, "mu")
  jax.tree.map(lambda m, g: close(m, 0.1 * g), moments, grads)
  for average, old, fresh in (
    (new.ema_params, state.params, new.params),
    (new.ema_batch_stats, state.batch_stats, new.batch_stats),
  ):
    jax.tree.map(
      lambda a, o, f: close(a, 0.9 * o + 0.1 * f), average, old, fresh
    )
  assert int(new.step) == 1


def test_same_seed_same_bits_and_dropout_follows_seed_and_step():
  first = _train(5, dropout=0.5)
  _assert_equal(first, _train(5, dropout=0.5))
  other = _train(1, recipe=_recipe(seed=1), dropout=0.5)
  assert first[1][0]["loss"] != other[1][0]["loss"]
  step, state, _ = _build(dropout=0.5)
  later = steps.TrainState(**(vars(state) | {"step": jnp.asarray(1)}))
  losses_at = [
    float(step(s, IMAGES[0], LABELS[0])[1]["loss"]) for s in (state, later)
  ]
  assert losses_at[0] != losses_at[1]


@pytest.mark.parametrize("accum_steps", [2, 4])
def test_accumulation_equals_the_whole_batch_in_groups(accum_steps):
  # Micro-batch a takes rows a, a + count, ...; in that order, with a group for
  # each, the whole batch must give the same update and statistics.
  order = np.arange(BATCH).reshape(-1, accum_steps).T.ravel()
  step, state, _ = _build(bn_groups=accum_steps)
  whole, expected = step(state, IMAGES[0][order], LABELS[0][order])
  step, state, _ = _build(recipe=_recipe(accum_steps=accum_steps))
  parts, metrics = step(state, IMAGES[0], LABELS[0])
  for name in metrics:
    np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
  for a, b in (
    (parts.batch_stats, whole.batch_stats),
    (
      optax.tree.get(parts.opt_state, "mu"),
      optax.tree.get(whole.opt_state, "mu"),
    ),
  ):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), a, b
    )


def test_losses_do_not_depend_on_the_number_of_devices():
  histories = {
    count: _train(10, sharding.Layout(jax.devices()[:count]))[1]
    for count in (1, 2, 4, 8)
  }
  expected = [metrics["loss"] for metrics in histories[1]]
  for count, history in histories.items():
    actual = [metrics["loss"] for metrics in history]
    difference = np.abs(np.subtract(actual, expected)).max()
    print(f"{count} devices: losses differ by {difference:.1e} at most")
    assert difference <= 1e-5


def _all_reduces(bn_groups):
  layout = sharding.Layout(jax.devices()[:8])
  step, state, _ = _build(layout, bn_groups=bn_groups)
  compiled = step.lower(
    layout.replicated_shapes(state),
    images=layout.batch_shape(IMAGES[0].shape, np.uint8),
    labels=layout.batch_shape(LABELS[0].shape, np.int32),
  ).compile()
  return compiled.as_text().count(" all-reduce(")


def test_a_group_on_one_device_needs_no_communication():
  # Statistics of the whole batch are reduced layer by layer, there and back;
  # those of a device's own group only where gradients and averages meet.
  together, alone = _all_reduces(bn_groups=1), _all_reduces(bn_groups=8)
  print(f"all-reduces: {together} with 1 group, {alone} with 8")
  assert alone <= 4 < 12 <= together


def test_evaluation_ignores_padding():
  _, state, graphdef = _build()
  images, labels = IMAGES[0].copy(), LABELS[0]
  mask = np.arange(BATCH) < 11
  evaluate = jax.jit(functools.partial(steps.eval_step, graphdef=graphdef))
  weights = (state.params, state.batch_stats)
  expected = evaluate(*weights, images, labels, mask.astype(np.float32))
  images[~mask] = 255 - images[~mask]
  actual = evaluate(*weights, images, labels, mask.astype(np.float32))
  _assert_equal(actual, expected)
  assert float(actual["count"]) == 11


def test_frozen_backbone_stays_to_the_last_bit():
  shares = optim.layer_rates(
    models.MobileViT.LAYERS, layer_decay=1.0, freeze="backbone"
  )
  recipe = _recipe(freeze_backbone=True)
  optimizer = optax.chain(recipe.optimizer, optim.scale_updates(shares))
  recipe = dataclasses.replace(recipe, optimizer=optimizer)
  model = models.create_model("mobilevit_xxs", num_classes=4)
  graphdef, *weights = steps.split(model)
  state = steps.init_state(*weights, optimizer)
  step = jax.jit(
    functools.partial(steps.train_step, graphdef=graphdef, recipe=recipe)
  )
  new = state
  images = np.repeat(np.repeat(IMAGES[0], 2, axis=1), 2, axis=2)
  for _ in range(3):
    new, metrics = step(new, images, LABELS[0])
  _assert_equal(new.batch_stats, state.batch_stats)
  for name, part in new.params.items():
    if name == "classifier":
      assert not np.array_equal(part["kernel"], state.params[name]["kernel"])
    else:
      _assert_equal(part, state.params[name])
  # Dropout is off in the backbone: the loss is that of its evaluation.
  logits = models.create_model("mobilevit_xxs", num_classes=4)(images / 255.0)
  expected = losses.cross_entropy(logits, LABELS[0], label_smoothing=0.1)
  assert abs(float(metrics["loss"]) - float(jnp.mean(expected))) < 0.05


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 4.0)])
def test_mixed_loss_is_that_of_both_labels(weights):
  mix = mix_lib.Mix(mixup=1.0)
  recipe = _recipe(mix=mix, class_weights=weights)
  step, state, graphdef = _build(recipe=recipe)
  _, metrics = step(state, IMAGES[0], LABELS[0])
  key = jax.random.fold_in(jax.random.key(recipe.seed), 0)
  images, others, share = mix(
    jnp.asarray(IMAGES[0], jnp.float32) / 255,
    jnp.asarray(LABELS[0]),
    jax.random.fold_in(key, 1),
  )
  model = steps.merge(graphdef, state.params, state.batch_stats)
  log_p = np.asarray(jax.nn.log_softmax(model(images, train=True)), np.float64)
  share = np.asarray(share, np.float64)
  target = np.zeros((BATCH, 4))
  by_class = np.ones(4) if weights is None else np.array(weights)
  for labels, part in ((LABELS[0], share), (np.asarray(others), 1 - share)):
    smoothed = 0.9 * np.eye(4)[labels] + 0.1 / 4
    target += (part * by_class[labels])[:, None] * smoothed
  expected = -np.mean(np.sum(target * log_p, axis=1))
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
  best = log_p.argmax(1)
  hits = share * (best == LABELS[0]) + (1 - share) * (best == others)
  np.testing.assert_allclose(metrics["top1"], hits.mean(), rtol=1e-4)


def test_mixing_does_not_depend_on_the_devices():
  recipe = _recipe(mix=mix_lib.Mix(mixup=0.2, cutmix=1.0))
  one, eight = (
    _train(3, sharding.Layout(devices), recipe)[1]
    for devices in (jax.devices()[:1], jax.devices())
  )
  for a, b in zip(one, eight, strict=True):
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
