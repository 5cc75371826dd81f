import pytest

from mobilevit_jax.run import clock


@pytest.fixture
def now(monkeypatch):
  """A time that passes when told to."""
  moment = [1000.0]
  monkeypatch.setattr(clock.time, "monotonic", lambda: moment[0])
  monkeypatch.setattr(clock.time, "time", lambda: moment[0])

  def wait(seconds):
    moment[0] += seconds

  return wait


def test_window_is_split_and_pauses_do_not_count(now):
  timer = clock.Clock(10, 20, began=900.0, peak_flops=1e3)
  now(4.0)  # a step of 3 s that waited 1 s for its data
  timer.add(images=8, wait=1.0, flops=500.0)
  with timer.logging():
    now(1.0)
  with timer.pause():
    now(50.0)
  now(3.0)
  timer.add(images=8, wait=0.0, flops=1500.0)
  values, left = timer.read(12)
  assert values == {
    "images_per_second": 2.0,
    "steps_per_second": 0.25,
    "data_wait_seconds": 1.0,
    "step_seconds": 6.0,
    "logging_seconds": 1.0,
    "goodput": pytest.approx(6 / 158),
    "mfu": pytest.approx(2000 / 8 / 1e3),
  }
  assert left == 8 * 4.0
  now(2.0)
  timer.add(images=8, wait=0.0, flops=0.0)
  values, _ = timer.read(13)
  assert (values["step_seconds"], values["logging_seconds"]) == (2.0, 0.0)
  assert values["goodput"] == pytest.approx(8 / 160)


def test_goodput_counts_every_start_and_only_what_was_kept(now):
  first = clock.Clock(0, 100, began=1000.0)
  now(10.0)
  saved = first.useful_seconds
  now(20.0)  # lost with the process
  now(70.0)  # until there is a machine again
  second = clock.Clock(10, 100, began=1000.0, useful_seconds=saved)
  now(100.0)
  assert second.goodput() == pytest.approx((10 + 100) / 200)
  assert second.summary() == (
    "goodput: 0.55, 110 s of steps in 200 s since the run was first started"
  )


def test_utilisation_is_left_out_where_the_peak_is_not_known(now):
  timer = clock.Clock(0, 1, began=1000.0)
  now(1.0)
  assert "mfu" not in timer.read(1)[0]
