"""Training keeps to `record.json`, and `record.py` sees what differs."""

import json

import numpy as np
import pytest

from tests import record
from tests import runs


@pytest.mark.slow
@pytest.mark.parametrize("run", record.RUNS)
def test_first_losses(run, run_main, tmp_path):
  run_main(record.arguments(run, tmp_path, steps=record.FIRST_STEPS))
  expected = json.loads(record.FILE.read_text())[run]
  assert len(expected) == record.FIRST_STEPS
  np.testing.assert_allclose(runs.losses(tmp_path), expected, rtol=1e-4)
  # Both sizes are among these steps.
  sizes = {r["image_size"] for r in runs.records(tmp_path) if "epoch" in r}
  assert sizes == {32, 64}


def _quantities(loss=2.0, grad_norm=3.0, **arrays):
  return {
    "train loss": {1: np.array(1.0), 2: np.array(loss)},
    "train grad_norm": {1: np.array(grad_norm)},
    "ema arrays": {"a.weight": np.ones(3, np.float32), **arrays},
  }


@pytest.mark.parametrize(
  ("new", "failed"),
  [
    (_quantities(), set()),
    (_quantities(grad_norm=3.0 * (1 + 1e-7)), set()),
    (_quantities(grad_norm=3.0 * (1 + 3e-7)), {"train grad_norm"}),
    (_quantities(loss=2.0 * (1 + 1e-15)), {"train loss"}),
    (_quantities(loss=np.nan), {"train loss"}),
    (_quantities(b=np.zeros(1)), {"ema arrays"}),
    (_quantities(**{"a.weight": np.ones(3)}), {"ema arrays"}),
    (_quantities(**{"a.weight": np.ones(2, np.float32)}), {"ema arrays"}),
    ({**_quantities(), "train more": {1: np.array(0.0)}}, set()),
    ({**_quantities(), "train loss": {1: np.array(1.0)}}, {"train loss"}),
    ({}, {"train loss", "train grad_norm", "ema arrays"}),
  ],
)
def test_compare(new, failed):
  rows = record.compare(_quantities(), new)
  assert {row.quantity for row in rows if not row.ok} == failed
  assert all(("FAILED" in str(row)) != row.ok for row in rows)


def test_bad_ref_is_one_clear_line(capsys):
  assert record.main(["no-such-ref"]) == 1
  stderr = capsys.readouterr().err
  assert stderr.startswith("error: BASE='no-such-ref' is not a commit of ")
  assert stderr.count("\n") == 1
