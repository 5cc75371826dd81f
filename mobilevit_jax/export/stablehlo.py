"""StableHLO by `jax.export`: a zip of the program and its description.

    import json, zipfile
    from jax import export

    with zipfile.ZipFile("s.zip") as archive:
      data = bytearray(archive.read("program.jax_export"))
      labels = json.loads(archive.read("metadata.json"))["labels"]
    program = export.deserialize(data)
    answers = program.call(images)  # {"logits": [b, num_classes]}

needs JAX and nothing of this package.
"""

import collections
from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

from flax import nnx
import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.export import contract
from mobilevit_jax.export import fold_bn
from mobilevit_jax.models import layers
from mobilevit_jax.models.depthwise import DepthwiseConv
from mobilevit_jax.models.net import Net
from mobilevit_jax.models.net import public_name
from mobilevit_jax.weights import trees

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, METADATA = "program.jax_export", "metadata.json"
_FORBIDDEN = {"case", "if", "while"}

# Runs in a process that has not loaded this package.
_RUNNER = """
import sys
import zipfile

path, images, answers, batch = sys.argv[1:]
with zipfile.ZipFile(path) as archive:
  data = bytearray(archive.read("program.jax_export"))

import jax
from jax import export
import numpy as np

run, images = jax.jit(export.deserialize(data).call), np.load(images)
parts = [
  jax.tree.map(np.asarray, run(images[start : start + int(batch)]))
  for start in range(0, len(images), int(batch))
]
assert "mobilevit_jax" not in sys.modules
whole = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
np.savez(answers, **whole)
"""


def build(model: Net, options: contract.Options, metadata: str) -> bytes:
  """The zip, for CPU, CUDA and TPU alike.

  JAX lowers each convolution and product once for each platform, and chooses
  between the copies when it runs. Here all come out the same, which is checked,
  so one of them is kept, with leave to run on the others.
  """
  # Lowered three times and compared: only if all platforms have the same
  # program can one of them stand for all.
  program = _program(model, options)
  batch = options.batch or export.symbolic_shape("b")[0]
  shape = (batch, *options.shape[1:])
  images = jax.ShapeDtypeStruct(shape, jnp.dtype(options.input))
  # Leave to run elsewhere than where it was lowered for.
  anywhere = [export.DisabledSafetyCheck.platform()]
  with _no_source_lines():
    lowered = [
      export.export(program, platforms=[name], disabled_checks=anywhere)(images)
      for name in PLATFORMS
    ]
  if len({each.mlir_module_serialized for each in lowered}) != 1:
    raise contract.ExportError(
      f"the programs for {', '.join(PLATFORMS)} are not the same"
    )
  buffer = io.BytesIO()
  # With a fixed date, so that the same net gives the same file.
  with zipfile.ZipFile(buffer, "w") as archive:
    for name, content in (
      (PROGRAM, bytes(lowered[0].serialize())),
      (METADATA, metadata.encode()),
    ):
      archive.writestr(zipfile.ZipInfo(name), content)
  return buffer.getvalue()


@contextlib.contextmanager
def _no_source_lines() -> Iterator[None]:
  # The same net gives the same file wherever this package lies.
  name = "jax_traceback_in_locations_limit"
  before = getattr(jax.config, name)
  jax.config.update(name, 0)
  try:
    yield
  finally:
    jax.config.update(name, before)


def _program(model: Net, options: contract.Options):
  model = fold_bn.fold_batch_norms(model)
  for _, module in nnx.iter_modules(model):
    # "auto" would lower to a case on the platform, which is control flow.
    if isinstance(module, DepthwiseConv | layers.Conv):
      module.kind = "conv"
  graphdef, state = nnx.split(model)
  tree = nnx.to_pure_dict(state)
  kept = trees.flatten(tree)
  if options.precision == "fp16":
    # Kernels in half precision; biases and norms are a few kilobytes.
    matrices = {path: leaf for path, leaf in kept.items() if leaf.ndim > 1}
    kept |= {path: leaf.astype(jnp.float16) for path, leaf in matrices.items()}
  # The order of the program's casts, whatever the net's parts are called.
  paths = sorted(kept, key=public_name)

  def run(images: jax.Array) -> dict[str, jax.Array]:
    images = images.astype(jnp.float32)
    if options.input == "uint8":
      images = images / 255
    weights = {path: kept[path].astype(jnp.float32) for path in paths}
    net = nnx.merge(graphdef, trees.replace(tree, weights))
    return contract.outputs(net, images, options)

  return jax.jit(run)


def engine(data: bytes) -> contract.Engine:
  """JAX, where it runs by default, with the file's program."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    program = export.deserialize(bytearray(archive.read(PROGRAM)))
  call = jax.jit(program.call)
  return lambda images: jax.tree.map(np.asarray, call(images))


def metadata(data: bytes) -> str:
  """Our document in a file."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    return archive.read(METADATA).decode()


def run(
  data: bytes, images: np.ndarray, options: contract.Options
) -> contract.Outputs:
  """What JAX answers on CPU, in a fresh process that has no model code."""

  def fresh(images: np.ndarray) -> contract.Outputs:
    with tempfile.TemporaryDirectory() as name:
      # The file as a user would have it: no module of ours is imported.
      folder = pathlib.Path(name)
      (folder / "file.zip").write_bytes(data)
      np.save(folder / "images.npy", images)
      names = ("file.zip", "images.npy", "answers.npz", str(batch))
      done = subprocess.run(
        [sys.executable, "-c", _RUNNER, *names],
        cwd=folder,
        # Elsewhere JAX's products are less than float32 by default.
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
      )
      if done.returncode:
        raise contract.ExportError(
          "the file does not run: " + done.stderr.strip().splitlines()[-1]
        )
      with np.load(folder / "answers.npz") as answers:
        return dict(answers)

  batch = options.batch or len(images)
  count = -(-len(images) // batch) * batch
  return contract.in_batches(fresh, images, count)


def inspect(data: bytes) -> contract.Findings:
  """Operators and ranks; refuses control flow."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    program = export.deserialize(bytearray(archive.read(PROGRAM)))
  text = program.mlir_module()
  # By the text of the program: its Python bindings are private.
  operators = collections.Counter(re.findall(r'= "?stablehlo\.(\w+)', text))
  ranks = (
    shape.count("x") for shape in re.findall(r"tensor<([0-9x?]*)[a-z]", text)
  )
  note = f"for {', '.join(PLATFORMS)}"
  return contract.check_graph(
    contract.Findings(dict(operators), max(ranks), (note,)), _FORBIDDEN
  )
