"""What MIL's documentation says a CoreML program computes, in JAX.

CoreML itself runs on Apple's systems only. This reads a package back, weights
and all, and computes it operator by operator.
"""

import io
import zipfile

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from mobilevit_jax.export import coreml


def run(content, images, folder):
  """The outputs by name, of a package's zip; unpacks it into `folder`."""
  from coremltools.converters.mil.frontend.milproto import load

  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    archive.extractall(folder)
  spec = coreml.read(content)
  weights = folder / "Data" / "com.apple.CoreML" / "weights"
  program = load.load(spec, spec.specificationVersion, str(weights))
  function = program.functions["main"]

  @jax.jit
  def compute(images):
    values = {"images": images}
    for op in function.operations:
      if op.op_type != "const":
        (output,) = op.outputs
        values[output.name] = _apply(op, values)
        assert values[output.name].shape == output.shape, op.name
    return {variable.name: values[variable.name] for variable in outputs}

  outputs = function.outputs
  return jax.tree.map(np.asarray, compute(images))


def _apply(op, values):
  def value(given):
    if isinstance(given, (list, tuple)):
      return [value(each) for each in given]
    return values.get(given.name, given.val)

  inputs = {name: value(given) for name, given in op.inputs.items()}
  return globals()[f"_{op.op_type}"](**inputs)


def _conv(x, weight, bias, strides, pad_type, pad, dilations, groups):
  assert pad_type == "custom"
  y = lax.conv_general_dilated(
    x,
    jnp.asarray(weight),
    tuple(strides),
    [tuple(pad[:2]), tuple(pad[2:])],
    rhs_dilation=tuple(dilations),
    dimension_numbers=("NCHW", "OIHW", "NCHW"),
    feature_group_count=int(groups),
  )
  return y + bias[:, None, None]


def _linear(x, weight, bias):
  return x @ weight.T + bias


def _silu(x):
  return x * jax.nn.sigmoid(x)


def _add(x, y):
  return x + y


def _mul(x, y):
  return x * y


def _cast(x, dtype):
  kinds = {"fp16": jnp.float16, "fp32": jnp.float32, "int32": jnp.int32}
  return x.astype(kinds[dtype])


def _identity(x):
  return x


def _exp(x):
  return jnp.exp(x)


def _slice_by_size(x, begin, size):
  return lax.slice(x, begin, np.add(begin, size))


def _reduce_argmax(x, axis, keep_dims):
  assert not keep_dims
  return jnp.argmax(x, int(axis)).astype(jnp.int32)


def _concat(values, axis, interleave=False):
  assert not interleave
  return jnp.concatenate(values, axis)


def _relu(x):
  return jax.nn.relu(x)


def _resize_bilinear(x, target_size_height, target_size_width, sampling_mode):
  aligned = sampling_mode == "STRICT_ALIGN_CORNERS"
  assert aligned or sampling_mode == "UNALIGN_CORNERS"
  for axis, size in ((2, target_size_height), (3, target_size_width)):
    old = x.shape[axis]
    at = (np.arange(size) + 0.5) * old / size - 0.5
    at = np.linspace(0, old - 1, size) if aligned else np.clip(at, 0, old - 1)
    low = np.int32(at)
    high = np.minimum(low + 1, old - 1)
    shape = [1] * 4
    shape[axis] = size
    part = (at - low).reshape(shape).astype(x.dtype)
    below, above = jnp.take(x, low, axis), jnp.take(x, high, axis)
    x = below * (1 - part) + above * part
  return x


def _reduce_mean(x, axes, keep_dims):
  return jnp.mean(x, tuple(axes), keepdims=bool(keep_dims))


def _layer_norm(x, axes, epsilon):
  axes = tuple(axes)
  centred = x - jnp.mean(x, axes, keepdims=True)
  return centred * lax.rsqrt(jnp.var(x, axes, keepdims=True) + epsilon)


def _matmul(x, y, transpose_x, transpose_y):
  assert not transpose_x
  return x @ (jnp.swapaxes(y, -1, -2) if transpose_y else y)


def _softmax(x, axis):
  return jax.nn.softmax(x, int(axis))


def _reshape(x, shape):
  return x.reshape(tuple(shape))


def _transpose(x, perm):
  return x.transpose(tuple(perm))
