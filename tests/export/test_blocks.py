"""Every layer of every net has a writer."""

from flax import nnx
import pytest

from mobilevit_jax import models
from mobilevit_jax.export import blocks
from mobilevit_jax.export import contract
from mobilevit_jax.export import graph
from mobilevit_jax.export.blocks import heads
from tests import tiny


def test_every_family_and_head_is_registered():
  assert blocks.FAMILIES.keys() == tiny.published_families().keys()
  assert blocks.HEADS.keys() <= models.HEADS.keys()
  for name in blocks.HEADS:
    head = models.HEADS[name]
    assert heads.write.dispatch(head) is not heads.write.dispatch(object)


@pytest.mark.parametrize("name", models.VARIANTS)
def test_every_part_of_a_backbone_has_a_writer(name):
  backbone = models.abstract_model(name).backbone
  for layer in backbone.LAYERS:
    part = getattr(backbone, layer)
    for module in (part, *part) if isinstance(part, nnx.List) else (part,):
      writer = graph.write.dispatch(type(module))
      assert writer is not graph.write.dispatch(object), layer


def test_a_layer_without_a_writer_is_named():
  with pytest.raises(contract.ExportError, match=r"stage1/0: .* a Dropout"):
    graph.write(nnx.List([nnx.Dropout(0.1)]), None, None, "stage1")
  with pytest.raises(contract.ExportError, match="no writer of a Dropout"):
    heads.write(nnx.Dropout(0.1), None, {}, "logits")
