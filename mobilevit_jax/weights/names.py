"""The one table of weight names: ours, cvnets', timm's and Hugging Face's.

Each row gives a tensor's path in our model and what every dialect calls it;
reading and writing both go through it. PyTorch keeps convolutions as
`[out, in, kh, kw]` and dense layers as `[out, in]`; ours are `[kh, kw, in,
out]` and `[in, out]`.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import functools

import numpy as np

from mobilevit_jax.models import mobilevit

Dialect = str  # one of DIALECTS
DIALECTS: tuple[Dialect, ...] = ("jax", "timm", "hf", "cvnets")

# Apple's networks were trained on OpenCV's images; transformers kept that
# order, timm turned the first convolution round. Ours take RGB.
BGR_DIALECTS = ("cvnets", "hf")

STEM = "stem/conv/kernel"
CLASSIFIER = ("classifier/kernel", "classifier/bias")

# The convolutions of an inverted residual in each dialect.
_MV2 = (
  ("exp_1x1", "conv1_1x1", "expand_1x1"),
  ("conv_3x3", "conv2_kxk", "conv_3x3"),
  ("red_1x1", "conv3_1x1", "reduce_1x1"),
)
_STAGE_BLOCKS = (1, 3, 2, 2, 2)  # blocks of stages 1 to 5, in every variant


@dataclasses.dataclass(frozen=True)
class Row:
  """One tensor of the model.

  Attributes:
    path: in our model, its keys joined by slashes.
    cvnets: its name there.
    timm: its name there.
    hf: its names there: transformers splits the fused query-key-value
      projection, first axis first, into three.
  """

  path: str
  cvnets: str
  timm: str
  hf: tuple[str, ...]

  def names(self, dialect: Dialect) -> tuple[str, ...]:
    """What `dialect` calls it; more than one name means parts of it."""
    if dialect == "jax":
      return (self.path,)
    return self.hf if dialect == "hf" else (getattr(self, dialect),)


@functools.cache
def table() -> tuple[Row, ...]:
  """Every tensor of a MobileViT: the variants differ in widths alone."""
  return tuple(_rows())


def _rows() -> Iterator[Row]:
  yield from _conv_norm("stem", "conv_1", "stem", "mobilevit.conv_stem")
  for stage, blocks in enumerate(_STAGE_BLOCKS, start=1):
    for block in range(blocks):
      yield from _stage_block(stage, block)
  yield from _conv_norm(
    "head", "conv_1x1_exp", "final_conv", "mobilevit.conv_1x1_exp"
  )
  yield from _affine("classifier", "classifier.fc", "head.fc", "classifier")


def _stage_block(stage: int, block: int) -> Iterator[Row]:
  ours = f"stage{stage}/{block}"
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


def detect(keys: Iterable[str]) -> Dialect:
  """The dialect that most of the keys belong to.

  Raises:
    ValueError: if none of them is known.
  """
  keys = set(keys)
  scores = {
    dialect: sum(n in keys for row in table() for n in row.names(dialect))
    for dialect in DIALECTS
  }
  best = max(DIALECTS, key=lambda dialect: scores[dialect])
  if not scores[best]:
    sample = ", ".join(sorted(keys)[:3]) or "none at all"
    raise ValueError(
      "the tensors' names are those of no MobileViT that this package knows "
      f"({', '.join(DIALECTS)}); found {sample}"
    )
  return best


def to_dialect(
  weights: Mapping[str, np.ndarray], dialect: Dialect
) -> dict[str, np.ndarray]:
  """Our tensors by path, as the dialect names and shapes them."""
  tensors: dict[str, np.ndarray] = {}
  for row in table():
    value = weights[row.path]
    if dialect != "jax":
      value = _to_torch(value)
    if row.path == STEM and dialect in BGR_DIALECTS:
      value = value[:, ::-1]
    names = row.names(dialect)
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
  if row.path == STEM and dialect in BGR_DIALECTS:
    value = value[:, ::-1]
  if dialect != "jax":
    value = _from_torch(value)
  return np.ascontiguousarray(value)


def _to_torch(value: np.ndarray) -> np.ndarray:
  return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _from_torch(value: np.ndarray) -> np.ndarray:
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
