"""What every field of a configuration may be: one table, checked first.

The check runs before data is opened, and so before anything is compiled or
written. What depends on several fields, or on the data, is checked where they
come together (`experiment.build`).
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import difflib
import math
import numbers
from typing import Any

import numpy as np

from mobilevit_jax import models
from mobilevit_jax import optim
from mobilevit_jax.config import ConfigError
from mobilevit_jax.data import bad_images
from mobilevit_jax.data import plan
from mobilevit_jax.data.transforms import detect
from mobilevit_jax.data.transforms import presets
from mobilevit_jax.data.transforms import segment
from mobilevit_jax.run.tracker import TRACKERS
from mobilevit_jax.tasks import segment as segment_task
from mobilevit_jax.weights import io
from mobilevit_jax.weights import source

# A count above this is a slip, and would only run out of something later.
_MANY = 10**9
_PROCESSES = 1024
_FLOAT32 = 3.4e38  # the most that it holds


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a field may be.

  Attributes:
    allowed: in words, for a message and for the reference.
    fits: whether a value is one.
    words: all that there are, where they are words.
  """

  allowed: str
  fits: Callable[[Any], bool]
  words: Callable[[], Iterable[str]] = tuple

  def check(self, name: str, value: Any) -> None:
    """Raises `ConfigError` naming the field, unless the value fits."""
    if self.fits(value):
      return
    # The closest word is nearly always the one that was meant.
    near = difflib.get_close_matches(str(value), [*self.words()], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"config.{name}={value!r} must be {self}{hint}")

  def __str__(self) -> str:
    return self.allowed.format(words=", ".join(self.words()))


def _is_number(value: Any) -> bool:
  # A bool is an int to Python, and a slip to us.
  number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  # numpy's numbers count too; NaN and infinity don't.
  return number and math.isfinite(value)


def _is_whole(value: Any) -> bool:
  return _is_number(value) and isinstance(value, numbers.Integral)


def whole(low: int, high: int = _MANY) -> Rule:
  """A whole number from `low` to `high`."""
  return Rule(
    f"a whole number from {low} to {high}",
    lambda value: _is_whole(value) and low <= value <= high,
  )


def real(
  low: float, high: float = math.inf, *, above: bool = False, below=False
) -> Rule:
  """A finite number from `low` (or `above` it) to `high` (or `below` it)."""
  text = f"a finite number {'above' if above else 'from'} {low:g}"
  if high < math.inf:
    text += f" {'to below' if below else 'to'} {high:g}"

  def fits(value: Any) -> bool:
    if not _is_number(value) or not low <= value <= high:
      return False
    # The ends themselves, where they are left out.
    return not (above and value == low) and not (below and value == high)

  return Rule(text, fits)


def one_of(*words: str) -> Rule:
  """One of these words."""
  return any_of(lambda: words)


def any_of(words: Callable[[], Iterable[str]]) -> Rule:
  """One of the words that there are when it is asked."""
  return Rule(
    "one of {words}",
    lambda value: isinstance(value, str) and value in [*words()],
    words,
  )


def pair(rule: Rule, *, rises: bool = True) -> Rule:
  """Two values that follow a rule, of which the second is no smaller."""

  def fits(value: Any) -> bool:
    two = isinstance(value, list | tuple) and len(value) == 2
    return (
      two and all(map(rule.fits, value)) and (not rises or value[0] <= value[1])
    )

  return Rule(f"two that rise, each {rule.allowed}", fits)


def several(rule: Rule) -> Rule:
  """One or more values that follow a rule, none of them twice."""
  return Rule(
    f"one or more, none twice, each {rule.allowed}",
    lambda value: (
      isinstance(value, list | tuple)
      and len(value) > 0
      and all(map(rule.fits, value))
      and len(set(value)) == len(value)
    ),
  )


def optional(rule: Rule) -> Rule:
  """None, or what a rule allows."""
  # The rule's words stay, so that a slip is still recognised.
  return dataclasses.replace(
    rule,
    allowed=f"{rule.allowed}, or None",
    fits=lambda value: value is None or rule.fits(value),
  )


SWITCH = Rule("True or False", lambda value: isinstance(value, bool))
TEXT = Rule(
  "a text that is not empty",
  lambda value: isinstance(value, str) and value > "",
)
_SIZE = whole(1, presets.MAX_SIZE)
_SHARE = real(0, 1)

# A field is checked where a configuration has it: tasks have their own.
RULES: dict[str, Rule] = {
  # JAX's keys take 32 bits: a longer seed would be cut silently.
  "seed": whole(0, 2**32 - 1),
  "log_every_steps": whole(1),
  "tracker": one_of(*TRACKERS),
  "report": SWITCH,
  # --- The net. Names are asked for late: families are a table that others may
  # add to.
  "model.name": any_of(
    lambda: (v for f in models.FAMILIES.values() for v in f.variants)
  ),
  "model.head": any_of(lambda: models.HEADS),
  "model.num_classes": optional(whole(1, 10**6)),
  # Below 1: of nothing no gradient comes.
  "model.dropout": optional(real(0, 1, below=True)),
  "model.classifier_dropout": optional(real(0, 1, below=True)),
  "model.bn_groups": whole(1, 10**6),
  "model.output_stride": Rule(
    "8, 16 or 32", lambda value: _is_whole(value) and value in (8, 16, 32)
  ),
  "model.aspp_width": whole(1, 2**13),
  "model.aspp_dropout": real(0, 1, below=True),
  "model.aspp_dropout_kind": one_of("element", "channel"),
  "model.auxiliary": SWITCH,
  "model.aligned": SWITCH,
  "model.depthwise": one_of("auto", "conv", "shift"),
  "model.dtype": one_of("float32", "bfloat16", "float16", "float64"),
  "weights.source": optional(TEXT),
  "weights.which": one_of(*source.WHICH),
  "weights.reset": one_of(*io.RESETS),
  # --- The task: each has some of these fields.
  "task.name": TEXT,  # one of those that `check` is told
  "task.label_smoothing": real(0, 1, below=True),
  "task.mixup": real(0, 1e6),
  "task.cutmix": real(0, 1e6),
  "task.class_weights": one_of("none", "balanced"),
  "task.mix_each": one_of("image", "batch"),
  "task.protocol": one_of(*segment.PROTOCOLS),
  "task.auxiliary": real(0, 1e6),
  "task.dice": real(0, 1e6),
  "task.focal": real(0, 1e6),
  "task.window": whole(32, presets.MAX_SIZE),
  "task.overlap": real(0, 1, below=True),
  "task.loss_groups": whole(1, 2**13),
  "task.threshold": real(0, 1, below=True),
  "task.per_class": whole(1, 10**6),
  "task.nms_iou": real(0, 1, above=True),
  "task.most": whole(1, 10**6),
  # --- The images' way to the net. Shares and probabilities are from 0 to 1,
  # angles in degrees.
  "transform.crop_scale": pair(real(0, 1, above=True)),
  "transform.crop_ratio": pair(real(0, 100, above=True)),
  "transform.flip": _SHARE,
  "transform.randaugment_ops": whole(0, 100),
  "transform.randaugment_magnitude": real(0, 10),
  "transform.color_jitter": _SHARE,
  "transform.erase": _SHARE,
  "transform.crop": SWITCH,
  "transform.min_crop": whole(0, presets.MAX_SIZE),
  "transform.photometric": one_of(*detect.PHOTOMETRIC),
  "transform.short_side": pair(real(0, 100, above=True)),
  "transform.long_side": optional(real(0, 1000, above=True)),
  "transform.pad": SWITCH,
  "transform.most_of_one": real(0.1, 1),
  "transform.blur": _SHARE,
  "transform.rotation": real(0, 180),
  "transform.protocol": one_of(*segment.PROTOCOLS),
  "transform.multiple": whole(1, presets.MAX_SIZE),
  "transform.most_boxes": whole(1, 10**5),
  "transform.bad_boxes": one_of("clip", "error"),
  "transform.preset": one_of(*presets.PRESETS),
  # Of 65,535 a side, which is the most that a JPEG can have.
  "transform.max_pixels": whole(1, 2**32),
  "transform.resize_size": optional(whole(1, 2 * presets.MAX_SIZE)),
  # --- The data: what exists is found out when it is opened.
  "data.name": TEXT,
  "data.dir": optional(TEXT),
  "data.train_split": TEXT,
  "data.eval_split": TEXT,
  "data.few_shot": optional(whole(1)),
  "data.check": SWITCH,
  "data.on_bad_image": one_of(*bad_images.POLICIES),
  "data.num_workers": whole(0, _PROCESSES),
  "data.prefetch_batches": whole(1, 1000),
  # --- The batches. A size that stood twice would be drawn twice as often.
  "plan.sizes": several(_SIZE),
  "plan.base_size": _SIZE,
  # Eight times the paper's whole batch: of more, memory runs out.
  "plan.base_batch": whole(1, 2**13),
  "plan.groups": whole(1, 2**13),
  "plan.rule": one_of(*plan.RULES),
  "plan.batch_multiple": whole(1, 2**16),
  "plan.num_epochs": optional(whole(1, 10**6)),
  "plan.num_steps": optional(whole(1)),
  # --- The optimiser, whose rates become float32.
  "optim.name": one_of(*optim.OPTIMIZERS),
  "optim.momentum": real(0, 1, below=True),
  "optim.head_rate": real(0, 1e6, above=True),
  "optim.init_lr": real(0, _FLOAT32),
  "optim.peak_lr": real(0, _FLOAT32),
  "optim.final_lr": real(0, _FLOAT32),
  "optim.lr_batch": optional(whole(1)),
  "optim.warmup_steps": whole(0),
  "optim.warmup_epochs": optional(real(0, 1e6)),
  "optim.cosine_unit": one_of("epoch", "step"),
  "optim.weight_decay": real(0, 1000),
  "optim.decay": one_of("all", "no_norm_bias"),
  "optim.b1": real(0, 1, below=True),
  "optim.b2": real(0, 1, below=True),
  "optim.eps": real(0, 1, above=True),
  "optim.clip_norm": optional(real(0, 1e9, above=True)),
  "optim.accum_steps": whole(1, 2**16),
  "optim.layer_decay": real(0, 1, above=True),
  "optim.freeze": one_of("none", "backbone"),
  "optim.ema.momentum": real(0, 1, above=True),
  "optim.ema.warmup": SWITCH,
  # --- When the run evaluates, stops and saves.
  "eval.size": _SIZE,
  "eval.batch": whole(1, 2**16),
  "eval.every_epochs": whole(1),
  "early_stop.patience": optional(whole(1)),
  "checkpoint.every_steps": whole(1),
  "checkpoint.keep": whole(1, 10**6),
  "profile.start_step": optional(whole(0)),
  "profile.num_steps": whole(1, 10**6),
}

# Fields that a task has by the same name and means otherwise.
_OF_TASK: dict[str, dict[str, Rule]] = {
  "segment": {
    "task.class_weights": one_of(*segment_task.CLASS_WEIGHTS),
    "transform.photometric": SWITCH,
  },
}


def check(fields: Mapping[str, Any], tasks: Iterable[str]) -> None:
  """Checks a configuration's fields.

  Args:
    fields: by their dotted names.
    tasks: what `task.name` may be.

  Raises:
    ConfigError: in one line that names the first field that is
      wrong, its value, what is allowed and the closest right word.
  """
  # A task's own rules replace the common ones of the same name.
  own = _OF_TASK.get(str(fields["task.name"]), {})
  for name, rule in (RULES | own | {"task.name": one_of(*tasks)}).items():
    if name in fields:
      rule.check(name, fields[name])
  # What depends on the model as well: the smallest image it takes.
  smallest = models.family_of(fields["model.name"]).smallest
  for name in ("plan.sizes", "eval.size"):
    if min(np.atleast_1d(fields[name])) < smallest:
      raise ConfigError(
        f"config.{name}={fields[name]!r} must be at least {smallest}, the "
        f"smallest image that {fields['model.name']} takes"
      )
