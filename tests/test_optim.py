import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobilevit_jax import optim


def _schedule(**fields):
  defaults = {"epoch_starts": [0, 40, 90, 150], "num_steps": 200}
  return optim.warmup_cosine(**(defaults | {"warmup_steps": 30} | fields))


def test_schedule_warms_up_and_then_steps_once_an_epoch():
  # cvnets v0.1: lr = 2e-4 + it * 1.8e-3 / warm-up, then a cosine of the epoch
  # that the warm-up does not shift.
  rates = np.array([_schedule()(step) for step in range(200)])
  steps = np.arange(200)
  epoch = np.searchsorted([40, 90, 150], steps, side="right")
  cosine = 2e-4 + 0.5 * 1.8e-3 * (1 + np.cos(np.pi * epoch / 4))
  expected = np.where(steps < 30, 2e-4 + steps * 1.8e-3 / 30, cosine)
  np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_schedule_per_step():
  rates = np.array(
    [_schedule(cosine_unit="step")(step) for step in (30, 100, 200)]
  )
  cosine = (1 + np.cos(np.pi * np.array([30, 100, 200]) / 200)) / 2
  np.testing.assert_allclose(rates, 2e-4 + 1.8e-3 * cosine, rtol=1e-6)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"peak_lr": -1.0}, r"peak_lr=-1.0 must be"),
    ({"final_lr": float("nan")}, r"final_lr=nan must be"),
    ({"warmup_steps": -1}, r"warmup_steps=-1 must not"),
    ({"cosine_unit": "day"}, r"cosine_unit='day' must be 'epoch' or 'step'"),
  ],
)
def test_bad_schedule_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    _schedule(**fields)


def test_rate_follows_the_root_of_the_batch():
  # The paper's 2e-3 for 1024 images.
  assert optim.scale_rate(2e-3, batch=64, reference=1024) == 5e-4
  assert optim.scale_rate(2e-3, batch=64, reference=None) == 2e-3
  with pytest.raises(ValueError, match="lr_batch=0"):
    optim.scale_rate(2e-3, batch=64, reference=0)


def test_parts_train_at_their_share_of_the_rate():
  layers = ("backbone/stem", "backbone/stage1", "head/classifier")
  shares = optim.layer_rates(layers, layer_decay=0.5)
  assert shares == dict(zip(layers, (0.25, 0.5, 1.0), strict=True))
  alone = optim.layer_rates(layers, layer_decay=0.5, trained=layers[-1:])
  assert alone == dict(zip(layers, (0.0, 0.0, 1.0), strict=True))
  kernel = {"kernel": jnp.ones((2, 3))}
  params = {
    "net": {
      "backbone": {"stem": kernel, "stage1": kernel},
      "head": {"classifier": kernel},
    },
    "task": {"temperature": jnp.ones(())},
  }
  grads = jax.tree.map(lambda leaf: 3 * leaf, params)
  plain = optim.adamw(lambda step: 0.1, weight_decay=0.5)
  scaled = optax.chain(plain, optim.scale_updates(shares))
  expected, _ = plain.update(grads, plain.init(params), params)
  found, _ = scaled.update(grads, scaled.init(params), params)
  for path, share in shares.items():
    owner, name = path.split("/")
    # Weight decay and all.
    np.testing.assert_allclose(
      found["net"][owner][name]["kernel"],
      share * expected["net"][owner][name]["kernel"],
      rtol=1e-6,
    )
  np.testing.assert_array_equal(
    found["task"]["temperature"], expected["task"]["temperature"]
  )


def _run(optimizer, params, grads):
  state = optimizer.init(params)
  for grad in grads:
    updates, state = optimizer.update(grad, state, params)
    params = optax.apply_updates(params, updates)
  return params


@pytest.mark.parametrize("decay", ["all", "no_norm_bias"])
def test_adamw_equals_torch_by_the_book(decay):
  rng = np.random.default_rng(0)
  params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
  grads = [jax.tree.map(lambda p: rng.normal(size=p.shape), params)] * 5

  def by_the_book(p, gs, weight_decay, lr=1e-2):
    m = v = 0.0
    for t, g in enumerate(gs, start=1):
      p = p * (1 - lr * weight_decay)
      m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
      m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
      p = p - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
    return p

  actual = _run(
    optim.adamw(lambda _: 1e-2, weight_decay=0.1, decay=decay),
    jax.tree.map(jnp.asarray, params),
    grads,
  )
  for name, value in params.items():
    weight_decay = 0.0 if (name, decay) == ("bias", "no_norm_bias") else 0.1
    expected = by_the_book(value, [g[name] for g in grads], weight_decay)
    np.testing.assert_allclose(actual[name], expected, rtol=1e-4)


@pytest.mark.parametrize("decay", ["all", "no_norm_bias"])
def test_sgd_is_torchs_by_the_book(decay):
  rng = np.random.default_rng(0)
  params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
  grads = [
    jax.tree.map(lambda p: rng.normal(size=p.shape), params) for _ in range(5)
  ]
  actual = _run(
    optim.make(
      "sgd",
      lambda _: 1e-2,
      momentum=0.9,
      weight_decay=0.1,
      decay=decay,
      b1=0.5,  # AdamW's alone
    ),
    jax.tree.map(jnp.asarray, params),
    grads,
  )
  for name, value in params.items():
    weight_decay = 0.0 if (name, decay) == ("bias", "no_norm_bias") else 0.1
    total = 0.0
    for grad in grads:
      total = 0.9 * total + grad[name] + weight_decay * value
      value = value - 1e-2 * total
    np.testing.assert_allclose(actual[name], value, rtol=1e-4)


def test_unknown_optimizers_and_momenta_are_refused():
  with pytest.raises(ValueError, match="name='lion' must be one of adamw, sgd"):
    optim.make("lion", lambda _: 1.0)
  with pytest.raises(ValueError, match="momentum=1 must"):
    optim.make("sgd", lambda _: 1.0, momentum=1)


def test_clipping_bounds_what_adam_sees():
  params, grads = {"w": jnp.zeros(4)}, [{"w": jnp.full(4, 50.0)}]
  clipped = optim.adamw(lambda _: 1.0, clip_norm=1.0)
  state = clipped.init(params)
  _, state = clipped.update(grads[0], state, params)
  moment = optax.tree.get(state, "mu")["w"]
  np.testing.assert_allclose(moment, 0.1 * np.full(4, 0.5), rtol=1e-6)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"weight_decay": -1}, "weight_decay=-1"),
    ({"clip_norm": 0}, "clip_norm=0"),
    ({"decay": "some"}, "decay='some'"),
  ],
)
def test_bad_optimizer_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    optim.adamw(lambda _: 1.0, **fields)


def test_ema_follows_torch_by_the_book():
  average, expected = jnp.ones(3), np.ones(3)
  for step in range(4):
    new = np.array([step, 2.0 * step, -1.0])
    average = optim.update_ema(average, jnp.asarray(new), 0.25)
    expected = 0.75 * expected + 0.25 * new
  np.testing.assert_allclose(average, expected, rtol=1e-6)


def test_ema_warmup_forgets_the_start_and_ends_at_the_momentum():
  momentum = [
    float(optim.ema_momentum(step, momentum=0.02, warmup=True))
    for step in (0, 10, 10_000)
  ]
  np.testing.assert_allclose(momentum, [1.0, 0.5, 0.02], rtol=1e-6)
  constant = float(optim.ema_momentum(0, momentum=5e-4))
  np.testing.assert_allclose(constant, 5e-4, rtol=1e-6)
  with pytest.raises(ValueError, match="momentum=0 must"):
    optim.ema_momentum(0, momentum=0)
