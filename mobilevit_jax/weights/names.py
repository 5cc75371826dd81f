"""Tables of weight names: ours, cvnets', timm's and Hugging Face's.

Each row gives a tensor's path in our net and what every dialect calls it;
reading and writing both go through it. PyTorch keeps convolutions as
`[out, in, kh, kw]` and dense layers as `[out, in]`; ours are `[kh, kw, in,
out]` and `[in, out]`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from mobilevit_jax import models
from mobilevit_jax.models import net
from mobilevit_jax.weights import trees

Dialect = str  # one of DIALECTS
DIALECTS: tuple[Dialect, ...] = ("jax", "timm", "hf", "cvnets", "cvnets_v02")

# What a kind of layer is made of. Each line has the names that a part adds to
# those of the layer, ours, cvnets', timm's and transformers' (a hyphen: none),
# and the part's own kind. `kind*3` is a layer of depth 3, which repeats its
# lines with `{i}` for each number below that.
_LAYERS = {
  "mobilevit": """
    backbone/stem    conv_1         stem       mobilevit.conv_stem     conv_norm
    backbone         -              -          mobilevit.encoder.layer stages
    head/expand      conv_1x1_exp   final_conv mobilevit.conv_1x1_exp  conv_norm
    head/classifier  classifier.fc  head.fc    classifier              linear
  """,
  # The auxiliary head was not published by transformers.
  "mobilevit_deeplabv3": """
    backbone/stem  encoder.conv_1  -  mobilevit.conv_stem      conv_norm
    backbone       encoder         -  mobilevit.encoder.layer  stages
    head           seg_head        -  segmentation_head        deeplabv3
  """,
  "mobilevitv2_deeplabv3": """
    backbone/stem  encoder.conv_1  -  mobilevitv2.conv_stem      conv_norm
    backbone       encoder         -  mobilevitv2.encoder.layer  stages_v2
    head           seg_head        -  segmentation_head          deeplabv3
  """,
  "deeplabv3": """
    aspp                  aspp.aspp_layer          -  aspp        aspp
    classifier            classifier.classifier    -  classifier  conv_biased
    auxiliary             aux_head.aux_projection  -  -           conv_norm
    auxiliary_classifier  aux_head.aux_classifier  -  -           conv_biased
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
    -     -                -  -                 conv
    bias  block.conv.bias  -  convolution.bias  tensor
  """,
  "ssdlite": """
    head/extra/0     extra_layers.os_64   -  -  separable
    head/extra/1     extra_layers.os_128  -  -  separable
    head/extra/2     extra_layers.os_256  -  -  separable
    head/pool        extra_layers.os_-1.1 -  -  conv
    head/filters/0   ssd_heads.0     -  -  projection
    head/filters/1   ssd_heads.1     -  -  projection
    head             ssd_heads       -  -  level*5
    head/predict/5   ssd_heads.5.loc_cls_layer  -  -  biased
  """,
  "separable": """
    depthwise  dw_conv  -  -  conv
    norm       dw_conv  -  -  batch_norm
    pointwise  pw_conv  -  -  conv_norm
  """,
  "projection": "project proj_layer - - conv_norm",
  "level": """
    filters/{i}/depthwise  {i}.loc_cls_layer.dw_conv  -  -  conv
    filters/{i}/norm       {i}.loc_cls_layer.dw_conv  -  -  batch_norm
    predict/{i}            {i}.loc_cls_layer.pw_conv  -  -  biased
  """,
  "biased": """
    -     -                -  -  conv
    bias  block.conv.bias  -  -  tensor
  """,
  "mobilevit_l2": """
    backbone/stem    conv_1         -  -  conv_norm
    backbone         -              -  -  stages_l2
    head/expand      conv_1x1_exp   -  -  conv_norm
    head/classifier  classifier.fc  -  -  linear
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
  "mobilevitv2": """
    backbone/stem    conv_1        stem     mobilevitv2.conv_stem      conv_norm
    backbone         -             -        mobilevitv2.encoder.layer  stages_v2
    head/classifier  classifier.1  head.fc  classifier                 linear
  """,
  "stages_v2": """
    stage1/0  layer_1.0  stages.0.0  0.layer.0             inverted_residual
    stage2/0  layer_2.0  stages.1.0  1.layer.0             inverted_residual
    stage2/1  layer_2.1  stages.1.1  1.layer.1             inverted_residual
    stage3/0  layer_3.0  stages.2.0  2.downsampling_layer  inverted_residual
    stage3/1  layer_3.1  stages.2.1  2                     v2_block*2
    stage4/0  layer_4.0  stages.3.0  3.downsampling_layer  inverted_residual
    stage4/1  layer_4.1  stages.3.1  3                     v2_block*4
    stage5/0  layer_5.0  stages.4.0  4.downsampling_layer  inverted_residual
    stage5/1  layer_5.1  stages.4.1  4                     v2_block*3
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
  "conv_bias": """
    kernel  block.conv.weight  weight  convolution.weight  tensor
    bias    block.conv.bias    bias    convolution.bias    tensor
  """,
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
  "v2_block": """
    local_rep   local_rep.0  conv_kxk   conv_kxk         conv_norm
    expand      local_rep.1  conv_1x1   conv_1x1         conv_alone
    global_rep/{i} global_rep.{i} transformer.{i} transformer.layer.{i} v2_layer
    norm        global_rep.{depth} norm layernorm        norm
    project     conv_proj    conv_proj  conv_projection  conv_norm
  """,
  # Place 2 of cvnets' pre_norm_ffn is the activation.
  "v2_layer": """
    attention_norm  pre_norm_attn.0  norm1    layernorm_before  norm
    attention       pre_norm_attn.1  attn     attention         v2_attention
    ffn_norm        pre_norm_ffn.0   norm2    layernorm_after   norm
    ffn_in          pre_norm_ffn.1   mlp.fc1  ffn.conv1         conv_bias
    ffn_out         pre_norm_ffn.3   mlp.fc2  ffn.conv2         conv_bias
  """,
  "v2_attention": """
    qkv  qkv_proj  qkv_proj  qkv_proj  conv_bias
    out  out_proj  out_proj  out_proj  conv_bias
  """,
}
# "-L2" has two transformer layers in stage 4, and is otherwise the same.
_LAYERS["stages_l2"] = _LAYERS["stages"].replace("block*4", "block*2")
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
  # A tensor: all four names are complete.
  if kind == "tensor":
    ours, cvnets, timm, hf = names
    parts = _QKV if "QKV" in hf else ("",)
    yield Row(ours, cvnets, timm, tuple(hf.replace("QKV", p) for p in parts))
    return
  kind, _, depth = kind.partition("*")
  # Each line extends the four names: ours by a slash, theirs by a dot.
  for line in _LAYERS[kind].strip().splitlines():
    for i in range(int(depth) if "{i}" in line else 1):
      *added, part = line.format(i=i, depth=depth).split()
      joined = (
        mark.join(filter(None, (name, more.strip("-"))))
        for name, more, mark in zip(names, added, "/...", strict=True)
      )
      yield from _rows(part, *joined)


def _table(family: str, kind: str) -> tuple[Row, ...]:
  # BGR concerns one tensor, the kernel that sees the image.
  bgr = models.FAMILIES[family].bgr
  return tuple(
    dataclasses.replace(row, bgr=bgr * (row.path == _FIRST_KERNEL))
    for row in _rows(kind, "", "", "", "")
  )


def _cvnets_alone(rows: Iterable[Row]) -> tuple[Row, ...]:
  """The rows of a net that neither timm nor transformers has."""
  return tuple(dataclasses.replace(row, timm="", hf=("",)) for row in rows)


def _segmenter(
  rows: Iterable[Row], *, since_v02: bool = False
) -> tuple[Row, ...]:
  """The rows of a net with DeepLabv3, which timm has not.

  Args:
    rows: with the names of ml-cvnets v0.1.
    since_v02: whether that version had no such net.
  """
  result = []
  for row in rows:
    later = row.cvnets
    for old, new in _V02:
      later = later.replace(old, new)
    hf = ("",) if row.path.startswith("head/auxiliary") else row.hf
    first = "" if since_v02 else row.cvnets
    result.append(
      dataclasses.replace(row, cvnets=first, timm="", hf=hf, cvnets_v02=later)
    )
  return tuple(result)


def _detector(classifier: Iterable[Row]) -> tuple[Row, ...]:
  """The rows of SSDLite on the backbone of a classifier."""
  backbone = (
    dataclasses.replace(row, cvnets=f"encoder.{row.cvnets}")
    for row in classifier
    if row.path.startswith("backbone/")
  )
  return _cvnets_alone([*backbone, *_rows("ssdlite", "", "", "", "")])


# Published names, by the keys of `models.FAMILIES` and `models.HEADS`. The
# variants of a family differ in widths alone. MobileViTv3 has its forerunners'
# names in cvnets, and was published there alone.
TABLES: dict[str, dict[str, tuple[Row, ...]]] = {
  "mobilevit": {
    "classifier": _table("mobilevit", "mobilevit"),
    "deeplabv3": _segmenter(_table("mobilevit", "mobilevit_deeplabv3")),
  },
  "mobilevitv2": {
    "classifier": _table("mobilevitv2", "mobilevitv2"),
    "deeplabv3": _segmenter(
      _table("mobilevitv2", "mobilevitv2_deeplabv3"), since_v02=True
    ),
  },
  "mobilevitv3": {
    "classifier": _cvnets_alone(_table("mobilevitv3", "mobilevit"))
  },
  "mobilevitv3_l2": {
    "classifier": _cvnets_alone(_table("mobilevitv3_l2", "mobilevit_l2"))
  },
  "mobilevitv3_v2": {
    "classifier": _cvnets_alone(_table("mobilevitv3_v2", "mobilevitv2"))
  },
}
# Detectors share the classifier's backbone, so their rows are derived.
for _heads in TABLES.values():
  _heads["ssdlite"] = _detector(_heads["classifier"])


def table(model: models.Net) -> tuple[Row, ...]:
  """A row for every tensor of a net, which may be abstract.

  Raises:
    ValueError: if it is of no family.
  """
  heads = TABLES.get(models.family_of(model).name, {})
  paths = trees.flat_model(model)
  # Rows without a tensor in this net go; tensors without a row keep our name.
  # A head may be without a part: an auxiliary one, or where widths are equal.
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


def kind(tensors: Mapping[str, np.ndarray]) -> Kind:
  """Family, head and dialect that most of the tensors' names belong to.

  MobileViTv3 has the names of the nets that it changes; of families with equal
  names it is the one with a variant of the most similar shapes.

  Raises:
    ValueError: if none of the names is known.
  """
  best = _kinds(tensors)
  return (
    max(best, key=lambda k: closest(tensors, k)[0]) if best[1:] else best[0]
  )


def _kinds(keys: Collection[str]) -> list[Kind]:
  """Those that most of the names belong to; raises as `kind`."""
  best, most = [], 0.0
  for family, heads in TABLES.items():
    for head, rows in heads.items():
      for dialect in DIALECTS:
        names = [name for row in rows for name in row.names(dialect)]
        # How many of the dialect's names the tensors have.
        known = sum(name in keys for name in names if name)
        # Of tables with as many of the names, the one that asks for no more.
        score = known and known + known / len(names)
        if score > most:
          best, most = [], score
        if score and score == most:
          best.append(Kind(family, head, dialect))
  if not best:
    sample = ", ".join(sorted(keys)[:3]) or "none at all"
    raise ValueError(
      "the tensors' names are those of no net that this package knows "
      f"({', '.join(DIALECTS)}); found {sample}"
    )
  return best


def known(keys: Collection[str]) -> int:
  """How many of the names are in some table."""
  every = {
    name
    for heads in TABLES.values()
    for rows in heads.values()
    for row in rows
    for dialect in DIALECTS
    for name in row.names(dialect)
  }
  return len(every & {*keys})


def closest(tensors: Mapping[str, np.ndarray], kind: Kind) -> tuple[float, str]:
  """The variant of the most similar shapes, after the share that it has."""
  family, head, dialect = kind
  shares = []
  for name in models.FAMILIES[family].variants:
    shapes = _shapes(name, head)
    fits = [
      key in tensors and tensors[key].shape == shape
      for row in TABLES[family][head]
      if row.path.startswith("backbone/")
      for key, shape in dialect_shapes(row, shapes[row.path], dialect).items()
      # Widths differ by variant, so nearly all shapes of the right one fit, and
      # few of the others.
    ]
    shares.append((float(np.mean(fits)), name))
  return max(shares, key=lambda found: found[0])


@functools.cache
def _shapes(name: str, head: str) -> dict[str, tuple[int, ...]]:
  flat = trees.flat_model(models.abstract_model(name, head))
  return {path: leaf.shape for path, leaf in flat.items()}


def detect(keys: Collection[str]) -> Dialect:
  """The dialect that most of the keys belong to; raises as `kind`."""
  # No other one has slashes, and ours needs no table.
  return "jax" if any("/" in key for key in keys) else _kinds(keys)[0].dialect


def to_dialect(
  weights: Mapping[str, np.ndarray], rows: Sequence[Row], dialect: Dialect
) -> dict[str, np.ndarray]:
  """Our tensors by path, as the dialect names and shapes them."""
  tensors: dict[str, np.ndarray] = {}
  for row in rows:
    value = weights[row.path]
    if dialect != "jax":
      # Layout first, then channels: the input channel is PyTorch's second axis.
      value = _to_torch(value)
    if dialect in row.bgr:
      value = value[:, ::-1]
    names = row.names(dialect)
    if not all(names):
      raise ValueError(f"{row.path} has no name among those of {dialect}")
    # transformers has query, key and value apart, by output channels, which are
    # PyTorch's first axis.
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
    # [kh, kw, in, out] to [out, in, kh, kw]: the last two, reversed, then the
    # rest.
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
