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
from mobilevit_jax.tasks import classify
from tests import tiny

BATCH = 16
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, BATCH, 16, 16, 3), np.uint8)
LABELS = RNG.integers(0, 4, (10, BATCH), np.int32)
TASK = classify.Classify(label_smoothing=0.1)


def _recipe(**fields):
  schedule = optim.warmup_cosine(
    epoch_starts=[0], num_steps=100, warmup_steps=5, cosine_unit="step"
  )
  defaults = {
    "optimizer": optim.adamw(schedule),
    "schedule": schedule,
    "ema_momentum": functools.partial(optim.ema_momentum, momentum=0.1),
  }
  return steps.Recipe(**(defaults | fields))


def _build(layout=None, recipe=None, task=TASK, **fields):
  """A jitted train step and its first state."""
  layout = layout or sharding.Layout(jax.devices()[:1])
  recipe = recipe or _recipe()
  graphdef, *weights = steps.split(tiny.net(**fields))
  state = layout.replicate(steps.init_state(*weights, {}, recipe.optimizer))
  step = functools.partial(
    steps.train_step, frozen={}, graphdef=graphdef, recipe=recipe, task=task
  )
  return jax.jit(step, out_shardings=layout.replicated), state, graphdef


def _batch(index, order=slice(None)):
  return {"images": IMAGES[index][order], "labels": LABELS[index][order]}


def _train(num_steps, layout=None, recipe=None, task=TASK, **fields):
  layout = layout or sharding.Layout(jax.devices()[:1])
  step, state, _ = _build(layout, recipe, task, **fields)
  history = []
  for index in range(num_steps):
    state, metrics = step(state, layout.put_batch(_batch(index)))
    history.append({name: float(value) for name, value in metrics.items()})
  return state, history


def _assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.smoke
def test_step_is_gradient_optimizer_and_averages():
  recipe = _recipe()
  step, state, graphdef = _build(recipe=recipe)
  new, metrics = step(state, _batch(0))

  def loss_fn(params):
    model = steps.merge(graphdef, params["net"], state.batch_stats)
    logits = model(jnp.asarray(IMAGES[0]) / 255, train=True)
    loss = classify.cross_entropy(logits, LABELS[0], label_smoothing=0.1)
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
  losses_at = [float(step(s, _batch(0))[1]["loss"]) for s in (state, later)]
  assert losses_at[0] != losses_at[1]


@pytest.mark.parametrize("accum_steps", [2, 4])
def test_accumulation_equals_the_whole_batch_in_groups(accum_steps):
  # Micro-batch a takes rows a, a + count, ...; in that order, with a group for
  # each, the whole batch must give the same update and statistics.
  order = np.arange(BATCH).reshape(-1, accum_steps).T.ravel()
  step, state, _ = _build(bn_groups=accum_steps)
  whole, expected = step(state, _batch(0, order))
  step, state, _ = _build(recipe=_recipe(accum_steps=accum_steps))
  parts, metrics = step(state, _batch(0))
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
  spec = {"images": (IMAGES.shape[2:], np.uint8), "labels": ((), np.int32)}
  compiled = step.lower(
    layout.replicated_shapes(state),
    layout.batch_shapes(spec, BATCH),
  ).compile()
  return compiled.as_text().count(" all-reduce(")


def test_a_group_on_one_device_needs_no_communication():
  # Statistics of the whole batch are reduced layer by layer, there and back;
  # those of a device's own group only where gradients and averages meet.
  together, alone = _all_reduces(bn_groups=1), _all_reduces(bn_groups=8)
  print(f"all-reduces: {together} with 1 group, {alone} with 8")
  assert alone <= 4 < 12 <= together


def test_evaluation_sees_each_image_by_itself():
  _, state, graphdef = _build()
  evaluate = jax.jit(
    functools.partial(steps.eval_step, graphdef=graphdef, task=TASK)
  )
  weights = (state.params["net"], state.batch_stats)
  batch = _batch(0)
  expected = evaluate(*weights, batch)
  mask = np.arange(BATCH) < 11
  # Padding may hold anything, and the other rows stay as they are.
  batch["images"][~mask] = 255 - batch["images"][~mask]
  actual = evaluate(*weights, batch)
  for name, rows in expected.items():
    np.testing.assert_array_equal(actual[name][:11], rows[:11])
    assert not np.array_equal(actual[name][11:], rows[11:]) or name == "rank"


def test_frozen_backbone_stays_to_the_last_bit():
  net = models.create_model("mobilevit_xxs", num_classes=4, frozen=True)
  rates = optim.layer_rates(net.layers, trained=net.trained_layers)
  recipe = _recipe()
  optimizer = optax.chain(recipe.optimizer, optim.scale_updates(rates))
  recipe = dataclasses.replace(recipe, optimizer=optimizer)
  graphdef, *weights = steps.split(net)
  state = steps.init_state(*weights, {}, optimizer)
  step = jax.jit(
    functools.partial(
      steps.train_step, frozen={}, graphdef=graphdef, recipe=recipe, task=TASK
    )
  )
  new, batch = state, _batch(0)
  batch["images"] = np.repeat(np.repeat(batch["images"], 2, 1), 2, 2)
  for _ in range(3):
    new, metrics = step(new, batch)
  _assert_equal(new.batch_stats, state.batch_stats)
  for path in net.layers:
    owner, name = path.split("/")
    part, before = (s.params["net"][owner][name] for s in (new, state))
    if path == "head/classifier":
      assert not np.array_equal(part["kernel"], before["kernel"])
    else:
      _assert_equal(part, before)
  # Dropout is off in the backbone: the loss is that of its evaluation.
  logits = net(batch["images"] / 255.0)
  expected = classify.cross_entropy(logits, LABELS[0], label_smoothing=0.1)
  assert abs(float(metrics["loss"]) - float(jnp.mean(expected))) < 0.05


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 4.0)])
def test_mixed_loss_is_that_of_both_labels(weights):
  task = dataclasses.replace(TASK, mixup=1.0, class_weights=weights)
  step, state, graphdef = _build(task=task)
  _, metrics = step(state, _batch(0))
  key = jax.random.fold_in(jax.random.key(0), 0)
  images, share = classify.mix(
    jnp.asarray(IMAGES[0], jnp.float32) / 255,
    jax.random.fold_in(key, 1),
    mixup=1.0,
    cutmix=0.0,
  )
  others = np.roll(LABELS[0], 1)
  model = steps.merge(graphdef, state.params["net"], state.batch_stats)
  log_p = np.asarray(jax.nn.log_softmax(model(images, train=True)), np.float64)
  share = np.asarray(share, np.float64)
  target = np.zeros((BATCH, 4))
  by_class = np.ones(4) if weights is None else np.array(weights)
  for labels, part in ((LABELS[0], share), (others, 1 - share)):
    smoothed = 0.9 * np.eye(4)[labels] + 0.1 / 4
    target += (part * by_class[labels])[:, None] * smoothed
  expected = -np.mean(np.sum(target * log_p, axis=1))
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
  best = log_p.argmax(1)
  hits = share * (best == LABELS[0]) + (1 - share) * (best == others)
  np.testing.assert_allclose(metrics["top1"], hits.mean(), rtol=1e-4)


def test_mixing_does_not_depend_on_the_devices():
  task = dataclasses.replace(TASK, mixup=0.2, cutmix=1.0)
  one, eight = (
    _train(3, sharding.Layout(devices), task=task)[1]
    for devices in (jax.devices()[:1], jax.devices())
  )
  for a, b in zip(one, eight, strict=True):
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


class _Offset(classify.Classify):
  """Classification of logits that a parameter of the task's own moves."""

  def init(self, seed):
    del seed
    return {"offset": jnp.zeros(4)}

  def loss(self, model, params, batch, key, frozen, step):
    del key, step
    logits = model(batch["images"], train=True) + params["offset"]
    logits += frozen["shift"]
    return jnp.mean(classify.cross_entropy(logits, batch["labels"])), {}


def test_a_task_trains_its_own_parameters_and_never_what_is_frozen():
  task, recipe = _Offset(), _recipe()
  graphdef, *weights = steps.split(tiny.net())
  state = steps.init_state(*weights, task.init(0), recipe.optimizer)
  frozen = {"shift": jnp.arange(4.0)}
  step = functools.partial(
    steps.train_step, graphdef=graphdef, recipe=recipe, task=task
  )
  new, metrics = jax.jit(step)(state, _batch(0), frozen)
  assert set(new.params) == {"net", "task"}
  moved = np.asarray(new.params["task"]["offset"])
  assert (moved != 0).all()
  average = new.ema_params["task"]["offset"]
  np.testing.assert_allclose(average, 0.1 * moved, rtol=1e-5)
  # What is frozen has its part in the loss.
  other = jax.jit(step)(state, _batch(0), {"shift": jnp.zeros(4)})[1]
  assert float(other["loss"]) != float(metrics["loss"])
