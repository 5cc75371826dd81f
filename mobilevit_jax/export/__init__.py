"""BatchNorm folding for anyone; writers of LiteRT and ONNX graphs."""

from mobilevit_jax.export.fold_bn import fold_batch_norms

__all__ = ["fold_batch_norms"]
