"""Floating-point operations: what a train step needs, what a device can do.

Model FLOPs utilisation (MFU) is the one over the other:
`train_flops(macs, images) / step_seconds / (devices * peak_flops(kind))`.
"""

# Peak dense matrix FLOP/s of one JAX device: for bfloat16, and for float32 at
# JAX's default precision, which is one bfloat16 pass on TPU and TF32 on NVIDIA
# (none before Ampere). These are the vendors' figures. Where a TPU's two cores
# are two JAX devices (v2, v3, TPU7x), a device is half a chip.
# Sources: docs.cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}; the data
# sheets of V100, A100, H100, H200, HGX B200, L4 and L40S on nvidia.com, whose
# figures "with sparsity" are halved.
_PEAK: dict[str, tuple[float, float]] = {
  "TPU v2": (22.5e12, 22.5e12),
  "TPU v3": (61.5e12, 61.5e12),
  "TPU v4": (275e12, 275e12),
  "TPU v5 lite": (197e12, 197e12),
  "TPU v5e": (197e12, 197e12),
  "TPU v5": (459e12, 459e12),
  "TPU v5p": (459e12, 459e12),
  "TPU v6 lite": (918e12, 918e12),
  "TPU v6e": (918e12, 918e12),
  "TPU7x": (1153.5e12, 1153.5e12),
  "NVIDIA A100": (312e12, 156e12),
  "NVIDIA H100": (989.4e12, 494.7e12),
  "NVIDIA H100 PCIe": (756e12, 378e12),
  "NVIDIA H100 NVL": (835.5e12, 417.5e12),
  "NVIDIA H200": (989.4e12, 494.7e12),
  "NVIDIA H200 NVL": (835.5e12, 417.5e12),
  "NVIDIA B200": (2250e12, 1125e12),
  "NVIDIA L4": (121e12, 60.5e12),
  "NVIDIA L40S": (362e12, 183e12),
}


def peak_flops(device_kind: str, dtype: str = "bfloat16") -> float | None:
  """Dense matrix FLOP/s of one JAX device, or None where not known.

  Args:
    device_kind: `jax.devices()[0].device_kind`, such as `"TPU v4"` or
      `"NVIDIA A100-SXM4-40GB"`: what follows the name in the table is ignored.
    dtype: `"bfloat16"`, or `"float32"` at JAX's default matmul precision.
  """
  if dtype not in ("bfloat16", "float32"):
    return None
  names = [name for name in _PEAK if _starts_with_words(device_kind, name)]
  if not names:
    return None
  # The longest is the one that says most: "NVIDIA H100 PCIe" is no SXM board.
  bfloat16, float32 = _PEAK[max(names, key=len)]
  return bfloat16 if dtype == "bfloat16" else float32


def _starts_with_words(text: str, words: str) -> bool:
  """Whole words only: "NVIDIA L40S" is no "NVIDIA L4"."""
  rest = text.removeprefix(words)
  return rest != text and not rest[:1].isalnum()


def train_flops(macs: int, images: int) -> int:
  """FLOPs of forward and backward over `images`, by the usual count.

  A multiply-add is two, and the backward pass does the forward's work twice:
  once for the activations' gradients, once for the weights'. What is
  recomputed, norms, activations and the optimiser aren't counted.

  Args:
    macs: multiply-adds of one forward pass of one image; see
      `summary.forward_macs`.
    images: in the batch.
  """
  return 6 * macs * images
