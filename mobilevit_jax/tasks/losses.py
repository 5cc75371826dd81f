"""Label-smoothed cross-entropy, and metrics as masked sums with a count."""

import jax
import jax.numpy as jnp
import numpy as np


def cross_entropy(
  logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
  """Cross-entropy of each example.

  Smoothing follows ml-cvnets v0.1
  (`classification_loss_fns/label_smoothing.py`):
  `(1 - s) * nll + (s / num_classes) * sum(-log p)`.

  Args:
    logits: `[b, num_classes]`, float32 or wider.
    labels: int `[b]`, class indices.
    label_smoothing: s, in [0, 1).

  Returns:
    `[b]` losses in nats.
  """
  log_p = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
  if not label_smoothing:
    return nll
  uniform = -jnp.mean(log_p, axis=-1)
  return (1 - label_smoothing) * nll + label_smoothing * uniform


def balanced_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
  """Class weights under which every class counts as much as any other.

  They are inverse to the classes' counts, and 1 in the mean over the examples,
  so that the loss keeps its scale. A class without examples gets 0.
  """
  counts = np.bincount(labels, minlength=num_classes)
  present = max(np.count_nonzero(counts), 1)
  with np.errstate(divide="ignore"):
    weights = np.where(counts > 0, len(labels) / (present * counts), 0.0)
  return tuple(weights.tolist())


def metric_sums(
  logits: jax.Array, labels: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """Sums over the unmasked examples: `loss`, `top1`, `top5`, and `count`.

  A label is in the top k when fewer than k classes score higher, ties going
  to the lower index, so a constant net does not look right about everything.

  Args:
    logits: `[b, num_classes]`.
    labels: int `[b]`.
    mask: `[b]`, 1 for an example and 0 for padding.

  Returns:
    Scalars; divide by `count` for means.
  """
  target = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  before = jnp.arange(logits.shape[-1]) < labels[:, None]
  rank = jnp.sum((logits > target) | ((logits == target) & before), axis=-1)
  # A logit that is not a number is higher than nothing: count it as wrong.
  valid = mask * jnp.all(jnp.isfinite(logits), axis=-1)
  # Padding may hold anything, so it is selected away, not multiplied by 0.
  loss = jnp.where(mask > 0, cross_entropy(logits, labels), 0)
  return {
    "loss": jnp.sum(loss),
    "top1": jnp.sum(valid * (rank < 1)),
    "top5": jnp.sum(valid * (rank < 5)),
    "count": jnp.sum(mask),
  }
