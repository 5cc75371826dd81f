"""Configurations: what they say, and what they refuse before any work."""

import jax
import numpy as np
import pytest

from configs import digits
from configs import finetune
from configs import imagenet
from mobilevit_jax import __version__
from mobilevit_jax import create_model
from mobilevit_jax import experiment
from mobilevit_jax import models
from mobilevit_jax import steps
from mobilevit_jax.config import changes_since
from mobilevit_jax.config import ConfigError
from mobilevit_jax.config import save_record
from mobilevit_jax.config import to_record
from mobilevit_jax.data.plan import BatchPlan
from mobilevit_jax.run import sharding
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import source

NET = models.abstract_model("mobilevit_xxs")


def _set(config, field, value):
  *parts, last = field.split(".")
  for part in parts:
    config = config[part]
  with config.ignore_type():
    config[last] = value


@pytest.mark.smoke
def test_digits_builds():
  run = experiment.build(digits.get_config())
  assert len(run.source) == 1437
  assert run.plan.shapes == [(32, 48)]


@pytest.mark.parametrize("variant", ["xxs", "xs", "s"])
def test_imagenet_is_the_recipe_of_v01(variant):
  config = imagenet.get_config(variant)
  fields = config.plan.to_dict()
  plan = BatchPlan(1_281_167, seed=0, **fields)
  assert plan.shapes == [
    (160, 2624), (192, 1792), (256, 1024), (288, 1024), (320, 1024),
  ]  # fmt: skip
  assert plan.num_epochs == 300
  recipe = experiment.make_recipe(config, plan, NET)
  rates = [float(recipe.schedule(step)) for step in (0, 1500, 2999)]
  assert rates == pytest.approx([2e-4, 1.1e-3, 1.9994e-3], rel=1e-5)
  last = float(recipe.schedule(plan.num_steps - 1))
  assert last == pytest.approx(2e-4, rel=1e-3)
  assert float(recipe.ema_momentum(0)) == pytest.approx(5e-4)
  assert config.model.dropout == (0.05 if variant == "xxs" else 0.1)
  assert config.model.bn_groups == 8


@pytest.mark.parametrize("variant", ["v2_050", "v2_100", "v2_200", "v3_075"])
def test_imagenet_is_the_recipe_of_v02(variant):
  config = imagenet.get_config(variant)
  plan = BatchPlan(1_281_167, seed=0, **config.plan.to_dict())
  assert plan.shapes == [(256, 1024)]  # one size
  recipe = experiment.make_recipe(config, plan, NET)
  peak, decay = {
    "050": (9e-3, 0.004),
    "075": (9e-3, 0.008),
    "100": (7.5e-3, 0.013),
    "200": (2e-3, 0.05),
  }[variant[-3:]]
  steps = (0, 10_000, 19_999, plan.num_steps - 1)
  rates = [float(recipe.schedule(step)) for step in steps]
  expected = [1e-6, (1e-6 + peak) / 2, peak, peak / 10]
  assert rates == pytest.approx(expected, rel=1e-3)
  optim = config.optim
  assert (optim.weight_decay, optim.clip_norm) == (decay, 10)
  assert (optim.name, optim.decay) == ("adamw", "no_norm_bias")
  assert config.model.dropout == config.model.classifier_dropout == 0
  task, transform = config.task, config.transform
  assert (task.mixup, task.cutmix, task.mix_each) == (0.2, 1, "batch")
  assert (transform.preset, transform.resize_size) == ("timm", 288)


def test_384_px_of_v2_are_ten_epochs_of_sgd():
  config = imagenet.get_config("v2_100,384")
  plan = BatchPlan(1_281_167, seed=0, **config.plan.to_dict())
  assert plan.shapes == [(384, 128)] and plan.num_epochs == 10
  recipe = experiment.make_recipe(config, plan, NET)
  for step in (0, plan.num_steps - 1):
    assert float(recipe.schedule(step)) == pytest.approx(1e-3)
  assert (config.optim.name, config.optim.weight_decay) == ("sgd", 4e-5)
  assert config.task.mixup == config.task.cutmix == config.transform.erase == 0
  assert config.eval.size == config.transform.resize_size == 384


def test_every_variant_has_a_recipe():
  assert set(imagenet.VARIANTS) == set(map(models.short_name, models.VARIANTS))
  for variant in imagenet.VARIANTS:
    config = imagenet.get_config(variant)
    assert models.full_name(variant) == config.model.name
    dropout = models.VARIANTS[config.model.name]
    assert config.model.dropout == getattr(dropout, "dropout", 0)


def test_unknown_variants_are_refused():
  with pytest.raises(ValueError, match="'xl' must be one of xxs, xs, s"):
    imagenet.get_config("xl")
  for arguments in ("s,384", "v2_100,512", "v3_xxs,384", "v2_100,384,384"):
    with pytest.raises(ValueError, match="must be VARIANT, or VARIANT,384"):
      imagenet.get_config(arguments)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("log_every_steps", 0, "config.log_every_steps=0"),
    ("eval.every_epochs", 0, "config.eval.every_epochs=0"),
    ("checkpoint.keep", -1, "config.checkpoint.keep=-1"),
    (
      "model.name",
      "resnet",
      "config.model.name='resnet' must be one of mobilevit_xxs",
    ),
    ("model.head", "x", "config.model.head='x' must be one of classifier"),
    ("task.name", "x", "config.task.name='x' must be one of classify"),
    ("task.typo", 1, "config.task: .*typo"),
    ("model.num_classes", 9, "config.model: num_classes=9 .* 10 classes"),
    ("model.bn_groups", 5, "config.model.bn_groups=5 does not divide .* 48"),
    ("model.typo", 5, "config.model: .*typo"),
    ("data.name", "folder", "config.data: .*data_dir"),
    ("data.train_split", "val", "config.data: .*'val'"),
    (
      "data.few_shot",
      0,
      "config.data.few_shot=0 must be a whole number from 1",
    ),
    ("task.mixup", -1.0, "config.task.mixup=-1.0 must be"),
    ("transform.erase", 2.0, "config.transform.erase=2.0 must be"),
    ("transform.preset", "x", "config.transform.preset='x' must be one of"),
    ("transform.resize_size", 9, "config.transform: resize_size=9 must be"),
    ("transform.flip", 2.0, "config.transform.flip=2.0 must be"),
    (
      "transform.crop_scale",
      (0.0, 1.0),
      "config.transform.crop_scale=.* must be two that rise",
    ),
    ("plan.rule", "v9", "config.plan.rule='v9' must be one of cvnets_v01"),
    (
      "plan.base_batch",
      49,
      "config.plan: .*num_devices=8 must .*batch_multiple",
    ),
    ("optim.accum_steps", 5, "config.optim.accum_steps=5 .*batch_multiple"),
    ("task.label_smoothing", 1.0, "config.task.label_smoothing=1.0 must"),
    ("optim.cosine_unit", "day", "config.optim.cosine_unit='day' must"),
    ("optim.ema.momentum", 0.0, "config.optim.ema.momentum=0.0 must"),
    ("optim.clip_norm", -1.0, "config.optim.clip_norm=-1.0 must"),
    ("optim.lr_batch", 0, "config.optim.lr_batch=0 must be"),
    ("optim.warmup_epochs", -1.0, "config.optim.warmup_epochs=-1.0 must"),
    ("optim.layer_decay", 1.5, "config.optim.layer_decay=1.5 must be"),
    ("optim.freeze", "stem", "config.optim.freeze='stem' must be one of none"),
    ("task.class_weights", "x", "config.task.class_weights='x' must be"),
    ("early_stop.patience", 0, "config.early_stop.patience=0 must be"),
  ],
)
def test_bad_field_is_named_with_its_value(field, value, message):
  config = digits.get_config()
  with config.unlocked():
    _set(config, field, value)
  with pytest.raises(ConfigError, match=message):
    experiment.build(config)


@pytest.mark.parametrize(
  ("arguments", "size"),
  [
    ("xxs,scratch,32", 32),
    ("s,64,scratch", 64),
    ("v2_050,64", 64),
    ("v3_xxs,64,scratch", 64),
    ("xs", 256),
  ],
)
def test_finetune_takes_classes_and_rate_from_data_and_batch(arguments, size):
  config = finetune.get_config(arguments)
  config.data.update(name="digits", eval_split="test")
  run = experiment.build(config)
  assert run.record["model"]["num_classes"] == 10
  assert run.model.head.classifier.bias.shape == (10,)
  assert run.plan.shapes == [(size, 64)] and run.evaluation.size == size
  scratch = "scratch" in arguments
  resized = {32: 39, 64: 77}[size] if scratch else None  # a fifth more
  assert run.evaluation.transform.resize_size == resized
  warm = round((5 / 75 if scratch else 2 / 30) * run.plan.num_steps)
  # The root of 64 / 1024 is a quarter.
  assert float(run.recipe.schedule(warm)) == pytest.approx(
    1e-3 if scratch else 2.5e-4, rel=0.02
  )
  assert float(run.recipe.schedule(0)) == pytest.approx(
    2.5e-5 if scratch else 2.5e-6
  )


@pytest.mark.parametrize("arguments", ["s,big", "s,scratch,9,9", "s,scratch,x"])
def test_bad_arguments_of_finetune_are_refused(arguments):
  with pytest.raises(ValueError, match=r"must be VARIANT\[,scratch\]\[,SIZE\]"):
    finetune.get_config(arguments)


def test_few_shot_and_balance_reach_the_recipe():
  config = finetune.get_config("xxs,scratch,32")
  config.data.update(name="digits", eval_split="test", few_shot=3)
  config.task.class_weights = "balanced"
  run = experiment.build(config)
  assert len(run.source) == 30
  assert run.task.class_weights == pytest.approx([1.0] * 10)


def test_run_starts_from_weights_with_a_new_head(tmp_path):
  theirs = create_model("mobilevit_xxs", seed=1, num_classes=37)
  path = tmp_path / "weights.safetensors"
  save_weights(theirs, path, to="timm")
  config = digits.get_config()
  config.weights.update(source=str(path), reset="classifier")
  run = experiment.build(config)
  initial, words = run.initial_model()
  count = len(source.read_weights(path).tensors)
  assert words == (
    f"{path} (timm, {count} tensors; the classifier is random, seed 0)"
  )
  state = experiment.initial_state(
    initial, run.task, run.recipe, sharding.Layout()
  )
  own = create_model("mobilevit_xxs", seed=config.seed, num_classes=10)
  expected = steps.split(theirs)[1]
  expected["head"]["classifier"] = steps.split(own)[1]["head"]["classifier"]
  for params in (state.params, state.ema_params):
    jax.tree.map(np.testing.assert_array_equal, params["net"], expected)


def test_transfer_without_weights_is_refused_with_the_ways_on():
  config = finetune.get_config("xxs,32")
  config.data.update(name="digits", eval_split="test")
  ways = r"hf://.* workdir of another run; .*VARIANT,scratch"
  with pytest.raises(ConfigError, match=ways):
    experiment.build(config).initial_model()
  config = finetune.get_config("xxs,scratch,32")
  config.data.update(name="digits", eval_split="test")
  assert experiment.build(config).initial_model()[1] == "random, seed 0"


def test_every_epoch_has_a_log_line():
  config = digits.get_config()
  config.log_every_steps = 1000
  assert experiment.build(config).cadence.log_every == 30
  config.plan.num_steps = 7
  assert experiment.build(config).cadence.log_every == 7


def test_weights_that_do_not_fit_are_refused(tmp_path):
  path = tmp_path / "weights.safetensors"
  save_weights(create_model("mobilevit_xxs", num_classes=37), path)
  config = digits.get_config()
  config.weights.source = str(path)
  run = experiment.build(config)
  with pytest.raises(ConfigError, match=r"config.weights: .* fit"):
    run.initial_model()


def test_changed_model_is_refused_and_other_changes_are_listed(tmp_path):
  def changes():
    return changes_since(to_record(config), tmp_path)

  config = digits.get_config()
  assert changes() == []
  save_record(to_record(config), ("zero", "one"), tmp_path)
  assert changes() == []
  config.optim.peak_lr = 1e-3
  assert changes() == ["optim.peak_lr: 0.002 -> 0.001"]
  config.model.dropout = 0.2
  with pytest.raises(ConfigError, match=r"dropout: 0.05 -> 0.2"):
    changes()


def test_run_of_another_version_is_refused_naming_both(tmp_path):
  record = to_record(digits.get_config())
  del record["version"]  # as the first version wrote it
  save_record(record, ("zero", "one"), tmp_path)
  with pytest.raises(ConfigError) as caught:
    changes_since(to_record(digits.get_config()), tmp_path)
  message = str(caught.value)
  assert "0.1.0" in message and __version__ in message and "\n" not in message


@pytest.mark.parametrize("rest", range(5))
def test_log_lines_are_never_over_few_steps(rest):
  cadence = experiment.Cadence(20, 100, 1, frozenset(), None)
  num_steps = 100 + 4 * rest
  ends = [s for s in range(1, num_steps + 1) if cadence.logs(s, num_steps)]
  assert ends[-1] == num_steps
  assert min(np.diff([0, *ends])) >= 20
