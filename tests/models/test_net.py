"""Nets of a backbone and a head: names, parts, fields, freezing."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax import models
from mobilevit_jax import steps
from mobilevit_jax.models import net
from mobilevit_jax.weights import trees
from tests import tiny

IMAGES = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)


def test_public_names_are_those_of_before_there_were_heads():
  assert {
    path: net.public_name(path)
    for path in (
      "backbone/stem/conv/kernel",
      "backbone/stage1/0/expand/norm/mean",
      "head/expand/conv/kernel",
      "head/classifier/bias",
      "head/aspp/0/conv/kernel",
    )
  } == {
    "backbone/stem/conv/kernel": "stem/conv/kernel",
    "backbone/stage1/0/expand/norm/mean": "stage1/0/expand/norm/mean",
    "head/expand/conv/kernel": "head/conv/kernel",
    "head/classifier/bias": "classifier/bias",
    "head/aspp/0/conv/kernel": "head/aspp/0/conv/kernel",
  }


@pytest.mark.parametrize("name", models.VARIANTS)
def test_public_names_are_unique(name):
  paths = trees.flat_model(models.abstract_model(name))
  assert len({net.public_name(path) for path in paths}) == len(paths)


def test_layers_are_all_there_is():
  model = models.abstract_model("mobilevit_s")
  paths = {"/".join(path.split("/")[:2]) for path in trees.flat_model(model)}
  assert set(model.layers) == paths
  assert model.layers == (
    "backbone/stem",
    *(f"backbone/stage{number}" for number in range(1, 6)),
    "head/expand",
    "head/classifier",
  )
  assert model.trained_layers == model.layers
  frozen = models.abstract_model("mobilevit_s", frozen=True)
  assert frozen.trained_layers == ("head/classifier",)


def test_fields_go_to_the_part_that_has_them():
  model = models.abstract_model(
    "mobilevit_xxs",
    num_classes=3,
    dropout=0.5,
    classifier_dropout=0.25,
    bn_groups=2,
    depthwise="conv",
    dtype="bfloat16",
    frozen=True,
  )
  assert model.backbone.stage3[1].global_rep[0].dropout.rate == 0.5
  assert model.head.dropout.rate == 0.25
  assert model.head.num_classes == 3
  assert model.frozen and model.head.frozen
  for part in (model.backbone.stem, model.head.expand):
    assert part.norm.groups == 2
    assert part.norm.dtype == part.conv.dtype == jnp.bfloat16
    assert part.conv.kind == "conv"
  assert model.head.classifier.dtype == jnp.float32


@pytest.mark.parametrize(
  ("arguments", "error", "message"),
  [
    ({"name": "s"}, ValueError, "model name='s' must be one of mobilevit_xxs"),
    ({"head": "x"}, ValueError, "head='x' must be one of classifier"),
    ({"classes": 3, "b": 1}, TypeError, "has no field b, classes"),
    ({"variant": 3}, TypeError, "has no field variant"),  # not by keyword
    ({"classifier_dropout": 1}, ValueError, "classifier_dropout=1 must be"),
  ],
)
def test_wrong_arguments_are_named(arguments, error, message):
  with pytest.raises(error, match=message):
    models.abstract_model(**{"name": "mobilevit_s", **arguments})


def test_short_names():
  for full in models.VARIANTS:
    short = models.short_name(full)
    assert short == full.removeprefix("mobilevit").removeprefix("_")
    assert models.full_name(short) == models.full_name(full) == full
  assert models.short_name("mobilevitv2_050") == "v2_050"
  with pytest.raises(ValueError, match=r"variant=m must be one of xxs, xs, s"):
    models.full_name("m")


def test_family_of_a_net_is_that_of_its_name():
  for name in models.VARIANTS:
    model = models.abstract_model(name)
    assert models.family_of(model) is models.family_of(name)
    assert models.head_of(model) == "classifier"
  with pytest.raises(ValueError, match="model name='BatchNorm' must be one of"):
    models.family_of(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))


def _gradients(forward, model):
  """Logits, gradients and new statistics of a sum of the logits' squares."""
  graphdef, params, stats = steps.split(model)

  def loss(params):
    merged = steps.merge(graphdef, params, stats)
    logits = forward(merged, nnx.Rngs(dropout=jax.random.key(0)))
    new = nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))
    return jnp.sum(jnp.square(logits)), (logits, new)

  grads, (logits, new) = jax.jit(jax.grad(loss, has_aux=True))(params)
  jax.tree.map(np.testing.assert_array_equal, new, stats)
  return logits, trees.flatten(grads)


def test_frozen_net_trains_the_linear_layer_alone():
  fields = {"dropout": 0.5, "classifier_dropout": 0.5}
  frozen, free = tiny.net(frozen=True, **fields), tiny.net(**fields)

  def by_hand(model, rngs):
    head = model.head
    x = head.expand(model.features(IMAGES)["stage5"])
    x = jax.lax.stop_gradient(jnp.mean(x, axis=(1, 2)))
    x = head.dropout(x, deterministic=False, rngs=rngs)
    return head.classifier(x)

  logits, grads = _gradients(
    lambda model, rngs: model(IMAGES, train=True, rngs=rngs), frozen
  )
  expected, by_parts = _gradients(by_hand, free)
  np.testing.assert_array_equal(logits, expected)
  for path, grad in grads.items():
    np.testing.assert_array_equal(grad, by_parts[path], path)
    assert np.any(grad) == path.startswith("head/classifier/"), path
  # It does drop: with the same weights, evaluation gives other logits.
  assert np.any(logits != frozen(IMAGES))
  np.testing.assert_array_equal(frozen(IMAGES), free(IMAGES))
