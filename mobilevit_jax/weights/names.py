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
from mobilevit_jax.models import net
from mobilevit_jax.weights import trees

Dialect = str  # one of DIALECTS
DIALECTS: tuple[Dialect, ...] = ("jax", "timm", "hf", "cvnets", "cvnets_v02")

# What a kind of layer is made of. Each line has the names that a part adds to
# those of the layer, ours, cvnets', timm's and transformers' (a hyphen: none; a
# question mark: it was never published), and the part's own kind. `kind*3` is a
# layer of depth 3, which repeats its lines with `{i}` for each number below
# that.
_LAYERS = {
  "mobilevit": """
    backbone         -              -          mobilevit               backbone
    head/expand      conv_1x1_exp   final_conv mobilevit.conv_1x1_exp  conv_norm
    head/classifier  classifier.fc  head.fc    classifier              linear
  """,
  "backbone": """
    stem  conv_1  stem  conv_stem      conv_norm
    -     -       -     encoder.layer  stages
  """,
  "mobilevit_deeplabv3": """
    backbone  encoder   ?  mobilevit          backbone
    head      seg_head  ?  segmentation_head  deeplabv3
  """,
  "deeplabv3": """
    aspp                  aspp.aspp_layer          -  aspp        aspp
    classifier            classifier.classifier    -  classifier  conv_biased
    auxiliary             aux_head.aux_projection  -  ?           conv_norm
    auxiliary_classifier  aux_head.aux_classifier  -  ?           conv_biased
  """,
  "aspp": """
    branches/0  convs.0                     -  convs.0           conv_norm
    branches/1  convs.1                     -  convs.1           conv_norm
    branches/2  convs.2                     -  convs.2           conv_norm
    branches/3  convs.3                     -  convs.3           conv_norm
    pool        convs.4.aspp_pool.conv_1x1  -  convs.4.conv_1x1  conv_norm
    project     project                     -  project           conv_norm
  """,
  "conv_biased": """
    -     -                -     -                 conv
    bias  block.conv.bias  bias  convolution.bias  tensor
  """,
  "stages": """
    stage1/0  layer_1.0  stages.0.0  0.layer.0             inverted_residual
    stage2/0  layer_2.0  stages.1.0  1.layer.0             inverted_residual
    stage2/1  layer_2.1  stages.1.1  1.layer.1             inverted_residual
    stage2/2  layer_2.2  stages.1.2  1.layer.2             inverted_residual
    stage3/0  layer_3.0  stages.2.0  2.downsampling_layer  inverted_residual
    stage3/1  layer_3.1  stages.2.1  2                     mobilevit_block*2
    stage4/0  layer_4.0  stages.3.0  3.downsampling_layer  inverted_residual
    stage4/1  layer_4.1  stages.3.1  3                     mobilevit_block*4
    stage5/0  layer_5.0  stages.4.0  4.downsampling_layer  inverted_residual
    stage5/1  layer_5.1  stages.4.1  4                     mobilevit_block*3
  """,
  "linear": """
    kernel  weight  weight  weight  tensor
    bias    bias    bias    bias    tensor
  """,
  "norm": """
    scale  weight  weight  weight  tensor
    bias   bias    bias    bias    tensor
  """,
  "statistics": """
    mean  running_mean  running_mean  running_mean  tensor
    var   running_var   running_var   running_var   tensor
  """,
  "batch_norm": """
    -  block.norm  bn  normalization  norm
    -  block.norm  bn  normalization  statistics
  """,
  "conv": "kernel block.conv.weight conv.weight convolution.weight tensor",
  "conv_alone": "kernel block.conv.weight weight convolution.weight tensor",
  "conv_norm": """
    conv  -  -  -  conv
    norm  -  -  -  batch_norm
  """,
  "inverted_residual": """
    expand     block.exp_1x1   conv1_1x1  expand_1x1  conv_norm
    depthwise  block.conv_3x3  conv2_kxk  conv_3x3    conv
    norm       block.conv_3x3  conv2_kxk  conv_3x3    batch_norm
    project    block.red_1x1   conv3_1x1  reduce_1x1  conv_norm
  """,
  "mobilevit_block": """
    local_rep   local_rep.conv_3x3  conv_kxk     conv_kxk           conv_norm
    expand      local_rep.conv_1x1  conv_1x1     conv_1x1           conv_alone
    global_rep/{i} global_rep.{i} transformer.{i} transformer.layer.{i} layer
    norm        global_rep.{depth}  norm         layernorm          norm
    project     conv_proj           conv_proj    conv_projection    conv_norm
    fusion      fusion              conv_fusion  fusion             conv_norm
  """,
  # Places 2 and 3 of cvnets' pre_norm_ffn are the activation and a dropout.
  "layer": """
    attention_norm  pre_norm_mha.0  norm1    layernorm_before    norm
    attention       pre_norm_mha.1  attn     attention           attention
    ffn_norm        pre_norm_ffn.0  norm2    layernorm_after     norm
    ffn_in          pre_norm_ffn.1  mlp.fc1  intermediate.dense  linear
    ffn_out         pre_norm_ffn.4  mlp.fc2  output.dense        linear
  """,
  "attention": """
    qkv  qkv_proj  qkv   attention.QKV  linear
    out  out_proj  proj  output.dense   linear
  """,
}
_FIRST_KERNEL = "backbone/stem/conv/kernel"
# What ml-cvnets calls otherwise since its version 0.2.
_V02 = (
  (".classifier.classifier.", ".classifier."),
  (".aux_projection.", ".0."),
  (".aux_classifier.", ".2."),
)
# transformers splits the fused projection, first axis first, into these.
_QKV = ("query", "key", "value")


@dataclasses.dataclass(frozen=True)
class Row:
  """One tensor of the net.

  Attributes:
    path: in our net, its keys joined by slashes.
    cvnets: its name there; empty, as the next, for what was never published.
    timm: its name there.
    hf: its names there, which are three for query, key and value.
    cvnets_v02: its name in ml-cvnets since v0.2, where a head has others.
    bgr: dialects whose tensor takes blue first: a first convolution's.
  """

  path: str
  cvnets: str = ""
  timm: str = ""
  hf: tuple[str, ...] = ("",)
  cvnets_v02: str = ""
  bgr: tuple[Dialect, ...] = ()

  def names(self, dialect: Dialect) -> tuple[str, ...]:
    """What `dialect` calls it; more than one name means parts of it."""
    if dialect == "jax":
      return (net.public_name(self.path),)
    return self.hf if dialect == "hf" else (getattr(self, dialect),)


def _rows(kind: str, *names: str) -> Iterator[Row]:
  """The tensors of a layer that goes by these four names."""
  if kind == "tensor":
    ours, cvnets, timm, hf = ("" if "?" in name else name for name in names)
    parts = _QKV if "QKV" in hf else ("",)
    yield Row(ours, cvnets, timm, tuple(hf.replace("QKV", p) for p in parts))
    return
  kind, _, depth = kind.partition("*")
  for line in _LAYERS[kind].strip().splitlines():
    for i in range(int(depth) if "{i}" in line else 1):
      *added, part = line.format(i=i, depth=depth).split()
      joined = (
        mark.join(filter(None, (name, more.strip("-"))))
        for name, more, mark in zip(names, added, "/...", strict=True)
      )
      yield from _rows(part, *joined)


def _table(family: str, kind: str, *, v02: bool = False) -> tuple[Row, ...]:
  """The rows of a family with a head; `v02`: ml-cvnets renamed its parts."""
  bgr = models.FAMILIES[family].bgr
  rows = []
  for row in _rows(kind, "", "", "", ""):
    later = row.cvnets if v02 else ""
    for old, new in _V02:
      later = later.replace(old, new)
    first = bgr * (row.path == _FIRST_KERNEL)
    rows.append(dataclasses.replace(row, cvnets_v02=later, bgr=first))
  return tuple(rows)


# Published names, by the keys of `models.FAMILIES` and `models.HEADS`. The
# variants of a family differ in widths alone.
TABLES: dict[str, dict[str, tuple[Row, ...]]] = {
  "mobilevit": {
    "classifier": _table("mobilevit", "mobilevit"),
    "deeplabv3": _table("mobilevit", "mobilevit_deeplabv3", v02=True),
  }
}


def table(model: models.Net) -> tuple[Row, ...]:
  """A row for every tensor of a net, which may be abstract.

  Raises:
    ValueError: if it is of no family.
  """
  heads = TABLES.get(models.family_of(model).name, {})
  paths = trees.flat_model(model)
  # A head may be without some of its parts, as an auxiliary one.
  rows = heads.get(models.head_of(model), ())
  rows = [row for row in rows if row.path in paths]
  known = {row.path for row in rows}
  others = (Row(path) for path in paths if path not in known)
  return (*rows, *others)


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
