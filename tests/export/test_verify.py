"""A file's answers beside JAX's, output by output."""

import dataclasses

import numpy as np
import pytest

from benchmarks import random_weights
from mobilevit_jax import models
from mobilevit_jax.export import contract
from mobilevit_jax.export import formats
from mobilevit_jax.export import verify
from tests import tiny


@pytest.fixture(scope="module")
def model():
  return random_weights.randomize(tiny.abstract_net())


def _expected(model, output):
  options = contract.Options(output=output)
  return verify.answers_of_jax(model, verify.built_in_images(32, 6), options)


def _compare(model, found, expected, output):
  options = contract.Options(output=output)
  return verify.compare(model, found, expected, options)


def test_outputs_are_named_by_the_head(model):
  logits = _expected(model, "logits")["logits"]
  probabilities = _expected(model, "probabilities")
  assert probabilities.keys() == {"probabilities"}
  exponentials = np.exp(logits)
  np.testing.assert_allclose(
    probabilities["probabilities"],
    exponentials / exponentials.sum(-1, keepdims=True),
    rtol=1e-5,
  )
  assert _expected(model, "features").keys() == {"stage5"}


@pytest.mark.parametrize("output", ("logits", "probabilities", "features"))
def test_equal_answers_agree(model, output):
  expected = _expected(model, output)
  comparison = _compare(model, expected, expected, output)
  assert comparison == verify.Comparison(6, 0.0, 1.0)


def test_an_output_of_another_name_is_refused(model):
  expected = _expected(model, "logits")
  for found in ({}, {"classes": expected["logits"]}, expected | {"b": 0}):
    with pytest.raises(contract.ExportError, match="not logits"):
      _compare(model, found, expected, "logits")


def test_small_probabilities_differ_as_logits_do(model):
  expected = {"probabilities": np.float32([[1 - 2e-8, 1e-8, 1e-8]])}
  found = {"probabilities": np.float32([[1 - 2e-8, 2e-8, 1e-8]])}
  comparison = _compare(model, found, expected, "probabilities")
  assert comparison.difference == pytest.approx(np.log(2), rel=1e-5)


def test_features_are_judged_output_by_output_and_by_the_head(model):
  stage5 = _expected(model, "features")["stage5"]
  expected = {"stage4": np.full((6, 1), 8.0, np.float32), "stage5": stage5}
  found = expected | {"stage4": expected["stage4"] + 2}
  comparison = _compare(model, found, expected, "features")
  # Of the stage's largest value; the classes are the last stage's business.
  assert (comparison.difference, comparison.agreement) == (0.25, 1)
  # An image of three has other features, which the head calls another class.
  classes = np.argmax(_expected(model, "logits")["logits"], -1)
  other = stage5.copy()
  other[::3] *= -50
  others = np.argmax(np.asarray(model.head({"stage5": other})), -1)
  assert np.sum(classes != others) == 2
  comparison = _compare(
    model, {"stage5": other}, {"stage5": stage5}, "features"
  )
  assert comparison.agreement == pytest.approx(4 / 6)


def test_the_smallest_image_is_the_familys(model, monkeypatch):
  row = dataclasses.replace(tiny.FAMILY, smallest=48)
  monkeypatch.setitem(models.FAMILIES, "tiny", row)
  formats.check_options("litert", contract.Options(size=48), model)
  with pytest.raises(ValueError, match="--size=47 must be at least 48"):
    formats.check_options("litert", contract.Options(size=47), model)
