"""Classification with a frozen array and a parameter of the task's own."""

import dataclasses

from flax import nnx
import jax.numpy as jnp

from mobilevit_jax.data.sources import digits
from mobilevit_jax.data.transforms.classify import ClassifyTransform
from mobilevit_jax.tasks import classify

Source, Transform, Head = digits.open_split, ClassifyTransform, None


@dataclasses.dataclass(frozen=True)
class Task(classify.Classify):
  """The logits of training are moved by what is learnt and what is given."""

  @property
  def frozen(self):
    return {"prior": jnp.linspace(0, 1, 10)}

  def init(self, seed):
    return {"offset": jnp.full(10, 0.01 * seed)}

  def loss(self, model, params, batch, key, frozen, step):
    rngs = nnx.Rngs(dropout=key)
    logits = model(batch["images"], train=True, rngs=rngs)
    logits += params["offset"] + frozen["prior"]
    loss = jnp.mean(classify.cross_entropy(logits, batch["labels"]))
    return loss, {"offset": jnp.abs(params["offset"]).sum()}


def make(source, num_classes):
  return Task()
