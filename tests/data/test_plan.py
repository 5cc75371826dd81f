import pickle
import time
import tracemalloc

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mobilevit_jax.data.plan import batch_for
from mobilevit_jax.data.plan import BatchPlan
from mobilevit_jax.data.plan import host_slice
from mobilevit_jax.data.plan import RULES

IMAGENET = 1_281_167
# MobileViT's five sizes, and what each rule makes of 8 groups of 128 at 256 px.
SIZES = (160, 192, 256, 288, 320)
PUBLISHED = {
  "cvnets_v01": (2624, 1792, 1024, 1024, 1024),
  "cvnets_v04": (2616, 1816, 1024, 808, 648),
}
PAPER = {"base_size": 256, "base_batch": 128, "groups": 8}


def _plan(num_examples=100, **overrides):
  fields = {
    "seed": 0,
    "sizes": (32, 48, 64),
    "base_size": 64,
    "base_batch": 4,
    "groups": 2,
    "num_epochs": 3,
  }
  return BatchPlan(num_examples, **(fields | overrides))


def _ids(plan, steps):
  return np.concatenate([plan.ids(t) for t in steps])


@st.composite
def plans(draw):
  """Small plans of every kind, some of fewer examples than a batch."""
  return _plan(
    draw(st.integers(1, 100)),
    seed=draw(st.integers(0, 2**40)),
    sizes=draw(st.lists(st.sampled_from(SIZES), min_size=1, unique=True)),
    base_size=256,
    base_batch=draw(st.integers(1, 12)),
    groups=draw(st.integers(1, 4)),
    rule=draw(st.sampled_from(RULES)),
    batch_multiple=draw(st.integers(1, 6)),
    num_epochs=draw(st.integers(1, 3)),
  )


@pytest.mark.smoke
@pytest.mark.parametrize("rule", PUBLISHED)
def test_published_batches(rule):
  plan = _plan(IMAGENET, sizes=SIZES, rule=rule, **PAPER)
  assert plan.shapes == list(zip(SIZES, PUBLISHED[rule], strict=True))


def test_one_size_is_the_base_batch():
  for rule in RULES:
    plan = _plan(1000, sizes=[256], rule=rule, **PAPER)
    assert plan.shapes == [(256, 1024)]
    assert {plan.size(t) for t in range(len(plan))} == {256}


def test_batch_multiple_rounds_up_and_keeps_the_groups():
  batches = [
    batch_for(
      size,
      base_size=256,
      base_batch=128,
      groups=8,
      rule="cvnets_v04",
      batch_multiple=48,
    )
    for size in SIZES
  ]
  assert batches == [2640, 1824, 1056, 816, 672]
  # 1 x 4 images rounded up to a multiple of 6 alone would be 6.
  rounded = batch_for(
    8, base_size=8, base_batch=1, groups=4, rule="cvnets_v04", batch_multiple=6
  )
  assert rounded == 12


@settings(deadline=None, max_examples=50)
@given(plan=plans())
def test_every_example_once_an_epoch(plan):
  ends = [*plan.epoch_starts[1:], plan.num_steps]
  everything = np.arange(plan.num_examples)
  for epoch, (begin, end) in enumerate(
    zip(plan.epoch_starts, ends, strict=True)
  ):
    assert [plan.epoch(t) for t in range(begin, end)] == [epoch] * (end - begin)
    ids = _ids(plan, range(begin, end))
    order, filled_up = np.split(ids, [plan.num_examples])
    np.testing.assert_array_equal(np.sort(order), everything)
    np.testing.assert_array_equal(filled_up, np.resize(order, len(filled_up)))
    # No batch is all fill-up.
    assert len(filled_up) < plan.batch(end - 1)


@settings(deadline=None, max_examples=50)
@given(plan=plans(), data=st.data())
def test_host_slices_make_up_the_batch(plan, data):
  step = plan[data.draw(st.integers(0, len(plan) - 1))]
  divisors = [d for d in range(1, step.batch + 1) if step.batch % d == 0]
  hosts = data.draw(st.sampled_from(divisors))
  shares = [step.ids[host_slice(step.batch, p, hosts)] for p in range(hosts)]
  assert {len(share) for share in shares} == {step.batch // hosts}
  np.testing.assert_array_equal(np.concatenate(shares), step.ids)


@settings(deadline=None, max_examples=50)
@given(plan=plans(), data=st.data())
def test_steps_are_the_same_in_any_order(plan, data):
  expected = [plan[t] for t in range(len(plan))]
  copied = pickle.loads(pickle.dumps(plan))  # as a worker process gets it
  for t in data.draw(st.lists(st.integers(0, len(plan) - 1), max_size=20)):
    assert (copied.epoch(t), copied.size(t), copied.batch(t)) == (
      expected[t].epoch,
      expected[t].size,
      expected[t].batch,
    )
    assert (copied.size(t), copied.batch(t)) in plan.shapes
    np.testing.assert_array_equal(copied.ids(t), expected[t].ids)


@settings(deadline=None, max_examples=50)
@given(
  num_examples=st.integers(1, 200),
  seed=st.integers(0, 2**32),
  short=st.integers(1, 20),
  more=st.integers(1, 20),
  lengths=st.sampled_from(
    [
      ("num_epochs", "num_epochs"),
      ("num_steps", "num_steps"),
      ("num_steps", "num_epochs"),  # an epoch has at least one step
    ]
  ),
)
def test_longer_plan_starts_with_the_shorter(
  num_examples, seed, short, more, lengths
):
  a, b = (
    _plan(num_examples, seed=seed, **({"num_epochs": None} | {name: length}))
    for name, length in zip(lengths, (short, short + more), strict=True)
  )
  assert len(a) < len(b)
  for t in range(len(a)):
    first, second = a[t], b[t]
    assert (first.epoch, first.size, first.batch) == (
      second.epoch,
      second.size,
      second.batch,
    )
    np.testing.assert_array_equal(first.ids, second.ids)
  np.testing.assert_array_equal(a.epoch_starts, b.epoch_starts[: a.num_epochs])


def test_num_steps_cuts_the_last_epoch_short():
  whole = _plan(num_epochs=2)
  plan = _plan(num_epochs=None, num_steps=whole.num_steps - 1)
  assert (len(plan), plan.num_epochs) == (whole.num_steps - 1, 2)
  with pytest.raises(IndexError, match=rf"step={len(plan)} must be in"):
    plan[len(plan)]
  with pytest.raises(IndexError, match="step=-1 must be in"):
    plan.ids(-1)


def test_epochs_and_seeds_have_their_own_orders_and_sizes():
  plan = _plan(1000, num_epochs=2)
  begin = int(plan.epoch_starts[1])
  other = _plan(1000, num_epochs=2, seed=1)

  def order(plan, begin):
    return _ids(plan, range(begin, plan.num_steps))[:1000].tolist()

  def sizes(plan, begin):
    return [plan.size(t) for t in range(begin, begin + 20)]

  assert len({tuple(order(plan, b)) for b in (0, begin)}) == 2
  assert order(plan, 0) != order(other, 0)
  assert sizes(plan, 0) != sizes(plan, begin)
  assert sizes(plan, 0) != sizes(other, 0)


def test_sizes_are_drawn_evenly_whatever_their_order():
  plan = _plan(200_000, num_epochs=1)
  sizes, counts = np.unique(
    [plan.size(t) for t in range(len(plan))], return_counts=True
  )
  assert sizes.tolist() == [32, 48, 64]
  # 10,000 draws and more: five standard deviations are under 0.025.
  assert len(plan) > 10_000
  np.testing.assert_allclose(counts / len(plan), 1 / 3, atol=0.025)
  turned = _plan(200_000, num_epochs=1, sizes=(64, 32, 48))
  assert [turned.size(t) for t in range(100)] == [
    plan.size(t) for t in range(100)
  ]


def test_plan_of_the_paper_is_small():
  begun = time.perf_counter()
  tracemalloc.start()
  try:
    plan = _plan(IMAGENET, sizes=SIZES, num_epochs=300, **PAPER)
    seconds = time.perf_counter() - begun
    ids = plan.ids(len(plan) // 2)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  print(
    f"plan of {len(plan)} steps: {seconds:.2f} s (traced), "
    f"{peak / 1e6:.0f} MB with the order of one epoch"
  )
  assert plan.num_epochs == 300
  assert len(ids) == plan.batch(len(plan) // 2)
  assert peak < 100e6


def test_device_count_that_divides_nothing_is_refused():
  plan = _plan(1000, sizes=(160, 256), rule="cvnets_v04", **PAPER)
  plan.check_devices(8)
  # Batches of 2616 and 1024: their greatest common divisor is 8.
  with pytest.raises(
    ValueError,
    match=r"num_devices=16 must divide .*1024, 2616.* as do 1, 2, 4, 8;"
    r".*batch_multiple=16",
  ):
    plan.check_devices(16)
  rounded = _plan(
    1000, sizes=(160, 256), rule="cvnets_v04", batch_multiple=16, **PAPER
  )
  rounded.check_devices(16)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((12, 0, 5), r"process_count=5 must divide.* 1, 2, 3, 4, 6, 12$"),
    ((12, 3, 3), r"process_index=3 must be in \[0, 3\)"),
    ((12, -1, 3), r"process_index=-1 must be in \[0, 3\)"),
    ((12, 0, 0), "process_count=0 must be an integer from 1"),
  ],
)
def test_impossible_host_is_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    host_slice(*arguments)


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"rule": "cvnets_v02"}, "rule='cvnets_v02' must be one of cvnets_v01,"),
    ({"sizes": ()}, r"sizes=\[\] must hold"),
    ({"sizes": (32, 32)}, r"sizes=\[32, 32\] must hold .* none twice"),
    ({"sizes": (32, 0)}, "sizes=0 must be an integer from 1"),
    ({"seed": -1}, "seed=-1 must be an integer from 0"),
    ({"groups": 1.5}, "groups=1.5 must be an integer from 1"),
    ({"base_batch": True}, "base_batch=True must be an integer from 1"),
    ({"batch_multiple": 0}, "batch_multiple=0 must be an integer from 1"),
    ({"num_epochs": 0}, "num_epochs=0 must be an integer from 1"),
    ({"num_epochs": None}, "num_epochs=None, num_steps=None"),
    ({"num_steps": 4}, "num_epochs=3, num_steps=4"),
  ],
)
def test_impossible_plan_is_refused(overrides, message):
  with pytest.raises(ValueError, match=message):
    _plan(**overrides)


def test_empty_data_set_is_refused():
  with pytest.raises(ValueError, match="num_examples=0 must be an integer"):
    _plan(0)
