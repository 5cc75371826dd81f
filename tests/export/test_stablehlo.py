"""StableHLO programs, run in a process that has no model code."""

import io
from operator import neg
import zipfile

import jax
from jax import export
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilevit_jax.export import contract
from mobilevit_jax.export import stablehlo
from mobilevit_jax.export import verify
from tests.export.random_model import random_model


@pytest.mark.slow
def test_one_program_for_all_platforms_and_any_batch():
  model = random_model("mobilevit_xxs", depthwise="auto")
  options = contract.Options("fp16", size=96, batch=None, input="uint8")
  content = stablehlo.build(model, options, '{"size": 96}')
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    assert archive.read("metadata.json") == b'{"size": 96}'
    program = archive.read("program.jax_export")
  assert b".py" not in program  # no path of the machine that wrote it
  assert len(program) < 0.6 * 4 * 990_000  # bytes of float32 parameters
  findings = stablehlo.inspect(content)
  assert findings.rank == 4
  assert not findings.operators.keys() & {"case", "if", "while"}
  assert findings.operators["convolution"] == 35
  images = verify.built_in_images(96, 3)
  found = stablehlo.run(content, images, options)
  expected = verify.answers_of_jax(model, images, options)
  comparison = verify.compare(model, found, expected, options)
  assert 0 < comparison.difference < 2e-2


def test_control_flow_is_refused():
  program = export.export(jax.jit(lambda x: lax.cond(x[0] > 0, abs, neg, x)))
  x = jax.ShapeDtypeStruct((3,), jnp.float32)
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    archive.writestr(stablehlo.PROGRAM, bytes(program(x).serialize()))
  with pytest.raises(contract.ExportError, match="has the operators case"):
    stablehlo.inspect(buffer.getvalue())


def test_a_program_that_fails_says_why():
  options = contract.Options(size=64)
  images = np.zeros((1, 64, 64, 3), np.float32)
  with pytest.raises(contract.ExportError, match="not a zip file"):
    stablehlo.run(b"no zip", images, options)
