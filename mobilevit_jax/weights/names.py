"""Tables of weight names: ours, cvnets', timm's and Hugging Face's.

Each row gives a tensor's path in our net and what every dialect calls it;
reading and writing both go through it. PyTorch keeps convolutions as
`[out, in, kh, kw]` and dense layers as `[out, in]`; ours are `[kh, kw, in,
out]` and `[in, out]`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from mobilevit_jax import models
from mobilevit_jax.models import mobilevit
from mobilevit_jax.models import net
from mobilevit_jax.weights import trees

Dialect = str  # one of DIALECTS
DIALECTS: tuple[Dialect, ...] = ("jax", "timm", "hf", "cvnets")

# The convolutions of an inverted residual in each dialect.
_MV2 = (
  ("exp_1x1", "conv1_1x1", "expand_1x1"),
  ("conv_3x3", "conv2_kxk", "conv_3x3"),
  ("red_1x1", "conv3_1x1", "reduce_1x1"),
)
_STAGE_BLOCKS = (1, 3, 2, 2, 2)  # blocks of stages 1 to 5, in every variant


@dataclasses.dataclass(frozen=True)
class Row:
  """One tensor of the net.

  Attributes:
    path: in our net, its keys joined by slashes.
    cvnets: its name there; empty, as the next, for what was never published.
    timm: its name there.
    hf: its names there: transformers splits the fused query-key-value
      projection, first axis first, into three.
    bgr: dialects whose tensor takes blue first: a first convolution's.
  """

  path: str
  cvnets: str = ""
  timm: str = ""
  hf: tuple[str, ...] = ("",)
  bgr: tuple[Dialect, ...] = ()

  def names(self, dialect: Dialect) -> tuple[str, ...]:
    """What `dialect` calls it; more than one name means parts of it."""
    if dialect == "jax":
      return (net.public_name(self.path),)
    return self.hf if dialect == "hf" else (getattr(self, dialect),)


def _mobilevit() -> Iterator[Row]:
  """Every tensor of a MobileViT: the variants differ in widths alone."""
  kernel, *norm = _conv_norm(
    "backbone/stem", "conv_1", "stem", "mobilevit.conv_stem"
  )
  yield dataclasses.replace(kernel, bgr=models.FAMILIES["mobilevit"].bgr)
  yield from norm
  for stage, blocks in enumerate(_STAGE_BLOCKS, start=1):
    for block in range(blocks):
      yield from _stage_block(stage, block)


def _mobilevit_classifier() -> Iterator[Row]:
  yield from _conv_norm(
    "head/expand", "conv_1x1_exp", "final_conv", "mobilevit.conv_1x1_exp"
  )
  yield from _affine(
    "head/classifier", "classifier.fc", "head.fc", "classifier"
  )


def _stage_block(stage: int, block: int) -> Iterator[Row]:
  ours = f"backbone/stage{stage}/{block}"
  cvnets, timm = f"layer_{stage}.{block}", f"stages.{stage - 1}.{block}"
  hf = f"mobilevit.encoder.layer.{stage - 1}"
  if stage <= 2:
    yield from _inverted_residual(ours, cvnets, timm, f"{hf}.layer.{block}")
  elif block == 0:
    yield from _inverted_residual(
      ours, cvnets, timm, f"{hf}.downsampling_layer"
    )
  else:
    depth = mobilevit.DEPTHS[stage - 3]
    yield from _mobilevit_block(ours, cvnets, timm, hf, depth)


def _inverted_residual(
  ours: str, cvnets: str, timm: str, hf: str
) -> Iterator[Row]:
  expand, depthwise, project = (
    (f"{cvnets}.block.{c}", f"{timm}.{t}", f"{hf}.{h}") for c, t, h in _MV2
  )
  yield from _conv_norm(f"{ours}/expand", *expand)
  yield _conv(f"{ours}/depthwise", *depthwise)
  yield from _norm(f"{ours}/norm", *depthwise)
  yield from _conv_norm(f"{ours}/project", *project)


def _mobilevit_block(
  ours: str, cvnets: str, timm: str, hf: str, depth: int
) -> Iterator[Row]:
  yield from _conv_norm(
    f"{ours}/local_rep",
    f"{cvnets}.local_rep.conv_3x3",
    f"{timm}.conv_kxk",
    f"{hf}.conv_kxk",
  )
  yield Row(
    f"{ours}/expand/kernel",
    f"{cvnets}.local_rep.conv_1x1.block.conv.weight",
    f"{timm}.conv_1x1.weight",
    (f"{hf}.conv_1x1.convolution.weight",),
  )
  for i in range(depth):
    yield from _transformer_block(
      f"{ours}/global_rep/{i}",
      f"{cvnets}.global_rep.{i}",
      f"{timm}.transformer.{i}",
      f"{hf}.transformer.layer.{i}",
    )
  yield from _affine(
    f"{ours}/norm",
    f"{cvnets}.global_rep.{depth}",
    f"{timm}.norm",
    f"{hf}.layernorm",
    kernel="scale",
  )
  yield from _conv_norm(
    f"{ours}/project",
    f"{cvnets}.conv_proj",
    f"{timm}.conv_proj",
    f"{hf}.conv_projection",
  )
  yield from _conv_norm(
    f"{ours}/fusion",
    f"{cvnets}.fusion",
    f"{timm}.conv_fusion",
    f"{hf}.fusion",
  )


def _transformer_block(
  ours: str, cvnets: str, timm: str, hf: str
) -> Iterator[Row]:
  mha, ffn = f"{cvnets}.pre_norm_mha", f"{cvnets}.pre_norm_ffn"
  yield from _affine(
    f"{ours}/attention_norm",
    f"{mha}.0",
    f"{timm}.norm1",
    f"{hf}.layernorm_before",
    kernel="scale",
  )
  yield from _affine(
    f"{ours}/attention/qkv",
    f"{mha}.1.qkv_proj",
    f"{timm}.attn.qkv",
    *(f"{hf}.attention.attention.{part}" for part in ("query", "key", "value")),
  )
  yield from _affine(
    f"{ours}/attention/out",
    f"{mha}.1.out_proj",
    f"{timm}.attn.proj",
    f"{hf}.attention.output.dense",
  )
  yield from _affine(
    f"{ours}/ffn_norm",
    f"{ffn}.0",
    f"{timm}.norm2",
    f"{hf}.layernorm_after",
    kernel="scale",
  )
  # Places 2 and 3 of cvnets' sequence are the activation and a dropout.
  yield from _affine(
    f"{ours}/ffn_in",
    f"{ffn}.1",
    f"{timm}.mlp.fc1",
    f"{hf}.intermediate.dense",
  )
  yield from _affine(
    f"{ours}/ffn_out", f"{ffn}.4", f"{timm}.mlp.fc2", f"{hf}.output.dense"
  )


def _conv_norm(ours: str, cvnets: str, timm: str, hf: str) -> Iterator[Row]:
  yield _conv(f"{ours}/conv", cvnets, timm, hf)
  yield from _norm(f"{ours}/norm", cvnets, timm, hf)


def _conv(ours: str, cvnets: str, timm: str, hf: str) -> Row:
  return Row(
    f"{ours}/kernel",
    f"{cvnets}.block.conv.weight",
    f"{timm}.conv.weight",
    (f"{hf}.convolution.weight",),
  )


def _norm(ours: str, cvnets: str, timm: str, hf: str) -> Iterator[Row]:
  names = (f"{cvnets}.block.norm", f"{timm}.bn", f"{hf}.normalization")
  yield from _affine(ours, *names, kernel="scale")
  for leaf, suffix in (("mean", "running_mean"), ("var", "running_var")):
    cvnets, timm, hf = (f"{name}.{suffix}" for name in names)
    yield Row(f"{ours}/{leaf}", cvnets, timm, (hf,))


def _affine(
  ours: str, cvnets: str, timm: str, *hf: str, kernel: str = "kernel"
) -> Iterator[Row]:
  for leaf, suffix in ((kernel, "weight"), ("bias", "bias")):
    yield Row(
      f"{ours}/{leaf}",
      f"{cvnets}.{suffix}",
      f"{timm}.{suffix}",
      tuple(f"{name}.{suffix}" for name in hf),
    )


# Published names, by the keys of `models.FAMILIES` and `models.HEADS`.
TABLES: dict[str, dict[str, tuple[Row, ...]]] = {
  "mobilevit": {"classifier": (*_mobilevit(), *_mobilevit_classifier())}
}


def table(model: models.Net) -> tuple[Row, ...]:
  """A row for every tensor of a net, which may be abstract.

  Raises:
    ValueError: if it is of no family.
  """
  heads = TABLES.get(models.family_of(model).name, {})
  published = {row.path: row for row in heads.get(models.head_of(model), ())}
  return tuple(
    published.get(path, Row(path)) for path in trees.flat_model(model)
  )


class Kind(NamedTuple):
  """Whose weights some tensors are."""

  family: str
  head: str
  dialect: Dialect


def kind(keys: Iterable[str]) -> Kind:
  """Family, head and dialect that most of the tensors' names belong to.

  Raises:
    ValueError: if none of the names is known.
  """
  keys = set(keys)
  best, most = None, 0.0
  for family, heads in TABLES.items():
    for head, rows in heads.items():
      for dialect in DIALECTS:
        names = [name for row in rows for name in row.names(dialect)]
        known = sum(name in keys for name in names)
        # Of tables with as many of the names, the one that asks for no more.
        score = known and known + known / len(names)
        if score > most:
          best, most = Kind(family, head, dialect), score
  if best is None:
    sample = ", ".join(sorted(keys)[:3]) or "none at all"
    raise ValueError(
      "the tensors' names are those of no net that this package knows "
      f"({', '.join(DIALECTS)}); found {sample}"
    )
  return best


def detect(keys: Iterable[str]) -> Dialect:
  """The dialect that most of the keys belong to; raises as `kind`."""
  keys = set(keys)
  # No other one has slashes, and ours needs no table.
  return "jax" if any("/" in key for key in keys) else kind(keys).dialect


def to_dialect(
  weights: Mapping[str, np.ndarray], rows: Sequence[Row], dialect: Dialect
) -> dict[str, np.ndarray]:
  """Our tensors by path, as the dialect names and shapes them."""
  tensors: dict[str, np.ndarray] = {}
  for row in rows:
    value = weights[row.path]
    if dialect != "jax":
      value = _to_torch(value)
    if dialect in row.bgr:
      value = value[:, ::-1]
    names = row.names(dialect)
    if not all(names):
      raise ValueError(f"{row.path} has no name among those of {dialect}")
    for name, part in zip(names, np.split(value, len(names)), strict=True):
      tensors[name] = np.ascontiguousarray(part)
      if name.endswith(".running_var"):
        # PyTorch's count of batches; it matters only without a momentum.
        count = name.replace(".running_var", ".num_batches_tracked")
        tensors[count] = np.zeros((), np.int64)
  return tensors


def dialect_shapes(
  row: Row, shape: tuple[int, ...], dialect: Dialect
) -> dict[str, tuple[int, ...]]:
  """Names and shapes of a row's tensors, from the shape that ours has."""
  if dialect != "jax":
    rest = shape[:-2]  # kh, kw of a convolution
    shape = (*shape[:-3:-1], *rest)
  names = row.names(dialect)
  part = (shape[0] // len(names), *shape[1:]) if len(names) > 1 else shape
  return dict.fromkeys(names, part)


def from_dialect(
  row: Row, tensors: Mapping[str, np.ndarray], dialect: Dialect
) -> np.ndarray:
  """Inverse of `to_dialect` for one row."""
  parts = [tensors[name] for name in row.names(dialect)]
  value = np.concatenate(parts) if len(parts) > 1 else parts[0]
  if dialect in row.bgr:
    value = value[:, ::-1]
  if dialect != "jax":
    value = _from_torch(value)
  return np.ascontiguousarray(value)


def _to_torch(value: np.ndarray) -> np.ndarray:
  return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _from_torch(value: np.ndarray) -> np.ndarray:
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
