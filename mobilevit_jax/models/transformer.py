"""Multi-head self-attention and the pre-norm transformer block.

Letters: `b` sequences, `n` tokens (patches), `d` width, `k` heads, `e` width
of a head (`d = k * e`). Source: ml-cvnets v0.1 `cvnets/modules/transformer.py`
and `cvnets/layers/multi_head_attention.py`.
"""

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mobilevit_jax.models import layers


class Attention(nnx.Module):
  """Scaled dot-product self-attention over `[b, n, d]`, `k` heads."""

  def __init__(self, dim: int, *, heads: int, dtype: DTypeLike = jnp.float32):
    if dim % heads:
      raise ValueError(f"heads={heads} does not divide the width {dim}")
    self.qkv = layers.Linear(dim, 3 * dim, dtype=dtype)
    self.out = layers.Linear(dim, dim, dtype=dtype)
    self.heads = heads

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.attend(x)[0]

  def attend(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output `[b, n, d]` and attention weights `[b, k, n, n]`."""
    b, n, d = x.shape
    k, e = self.heads, d // self.heads
    # One reshape gives q, k and v their heads; no tensor exceeds rank 4.
    qkv = self.qkv(x).reshape(b, n, 3 * k, e).transpose(0, 2, 1, 3)
    query, key, value = jnp.split(qkv, 3, axis=1)
    # Scaled before the product, as in ml-cvnets: it is the smaller array, and
    # in half precision the scores can't overflow.
    scores = jnp.einsum("bkne,bkme->bknm", query * e**-0.5, key)
    # Softmax in float32 or wider: bfloat16 sums lose the small weights.
    wide = layers.at_least_float32(scores.dtype)
    weights = jax.nn.softmax(scores.astype(wide), axis=-1)
    y = jnp.einsum("bknm,bkme->bkne", weights.astype(value.dtype), value)
    y = y.transpose(0, 2, 1, 3).reshape(b, n, d)
    return self.out(y), weights


class TransformerBlock(nnx.Module):
  """`x + drop(attention(norm(x)))`, then `x + drop(ffn(norm(x)))`."""

  def __init__(
    self,
    dim: int,
    *,
    heads: int,
    ffn_dim: int,
    dropout: float,
    dtype: DTypeLike = jnp.float32,
  ):
    self.attention_norm = layers.LayerNorm(dim, dtype=dtype)
    # Pre-norm: the residual stream itself is never normalised inside a block.
    self.attention = Attention(dim, heads=heads, dtype=dtype)
    self.ffn_norm = layers.LayerNorm(dim, dtype=dtype)
    self.ffn_in = layers.Linear(dim, ffn_dim, dtype=dtype)
    self.ffn_out = layers.Linear(ffn_dim, dim, dtype=dtype)
    self.dropout = nnx.Dropout(dropout)

  def __call__(
    self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
  ) -> jax.Array:
    def drop(y: jax.Array) -> jax.Array:
      return self.dropout(y, deterministic=not train, rngs=rngs)

    x = x + drop(self.attention(self.attention_norm(x)))
    # SiLU, where ViT has GELU: one activation in the whole net.
    y = jax.nn.silu(self.ffn_in(self.ffn_norm(x)))
    return x + drop(self.ffn_out(y))
