"""Every field of a configuration, with values that nobody should set."""

import math

import pytest

from configs import detect
from configs import digits
from configs import fields
from configs import finetune
from configs import imagenet
from configs import segment
from mobilevit_jax import experiment
from mobilevit_jax import models
from mobilevit_jax import ranges
from mobilevit_jax.config import ConfigError
from mobilevit_jax.config import flat_fields

# Legal for no field at all.
NEVER = (float("nan"), math.inf, -math.inf, -1, -0.5, object(), [], {}, b"x")
NUMBERS = (0, 1, 31, 10**30, 1e300, 0.0, 0.5, 2.0, True, False)
WORDS = ("", "nonsense", "1")


def _flat(config):
  return flat_fields(config.copy_and_resolve_references().to_dict())


FIELDS = {
  **_flat(segment.get_config("xxs")),
  **_flat(detect.get_config("xxs")),
  **_flat(imagenet.get_config("xxs")),
}


def test_every_field_has_a_rule_and_every_rule_a_field():
  # A task that has fields of its own has a table of its own there.
  tables = [table for name, table in vars(fields).items() if name.isupper()]
  assert ranges.RULES.keys() == {field for table in tables for field in table}


@pytest.mark.parametrize(
  "config",
  [
    digits.get_config(),
    *(imagenet.get_config(v) for v in ("xxs", "xs", "s")),
    *(finetune.get_config(a) for a in ("xxs", "xs,scratch,96")),
    *(detect.get_config(a) for a in ("xxs", "s,folder")),
    *(segment.get_config(a) for a in ("xxs", "s,ade20k", "xs,folder")),
    *(imagenet.get_config(v) for v in ("v2_100", "v3_xxs")),
  ],
)
def test_configurations_are_legal(config):
  ranges.check(_flat(config), experiment.TASKS)


def _refusal(name, value):
  with pytest.raises(ConfigError) as caught:
    ranges.check(FIELDS | {name: value}, experiment.TASKS)
  message = str(caught.value)
  assert message.startswith(f"config.{name}=") and "\n" not in message
  return message


@pytest.mark.parametrize("name", ranges.RULES)
def test_what_no_field_may_be_is_refused_in_one_line(name):
  rule = ranges.RULES[name]
  for value in NEVER:
    assert " must be " in _refusal(name, value)
  if "None" not in rule.allowed:
    _refusal(name, None)
  # Whatever is left is legal by the table, or refused by it.
  for value in (*NUMBERS, *WORDS, (), (0, 1), (31,), (1, 1), ("a", "b")):
    if not rule.fits(value):
      _refusal(name, value)
  kind = type(FIELDS[name])
  if kind is bool:
    assert not any(map(rule.fits, (0, 1, "True")))
  elif kind in (int, float):
    assert not any(map(rule.fits, (True, False, "1", 10**39, 1e300)))
  elif kind is str and name != "data.name" and "split" not in name:
    assert "did you mean" in _refusal(name, FIELDS[name] + "x")


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("optim.b1", 1.5, "must be a finite number from 0 to below 1"),
    (
      "weights.which",
      "emma",
      "one of auto, ema, raw, best; did you mean 'ema'",
    ),
    ("plan.sizes", (32, 32), "must be one or more, none twice, each a whole"),
    ("plan.sizes", (64, 31), "must be at least 32, the smallest image that"),
    ("eval.size", 31, "must be at least 32, the smallest image that mobilevit"),
    ("seed", 2**32, "must be a whole number from 0 to 4294967295"),
    ("profile.start_step", -5, "must be a whole number from 0 .*, or None"),
    ("plan.base_batch", 100000, "must be a whole number from 1 to 8192"),
  ],
)
def test_message_says_what_is_allowed(name, value, message):
  with pytest.raises(ConfigError, match=message):
    ranges.check(FIELDS | {name: value}, experiment.TASKS)


def test_words_are_those_that_there_are(monkeypatch):
  for name, rule in ranges.RULES.items():
    assert rule.fits(FIELDS[name]), name
  monkeypatch.setitem(models.HEADS, "new", object)
  assert ranges.RULES["model.head"].fits("new")
  assert set(experiment.TASKS) >= {FIELDS["task.name"]}
