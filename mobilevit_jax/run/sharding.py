"""One mesh over all devices of all processes; the only file that says Mesh."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

_BATCH = "batch"


class Layout:
  """Where arrays live: batches split over the devices, the rest everywhere.

  The axis is Auto: under the default, Explicit, the unfold's reshape raises.
  """

  def __init__(self, devices: Sequence[Any] | None = None):
    devices = jax.devices() if devices is None else devices
    mesh = Mesh(np.asarray(devices), (_BATCH,), axis_types=(AxisType.Auto,))
    self.num_devices = len(devices)
    self.replicated = NamedSharding(mesh, PartitionSpec())
    self.batch = NamedSharding(mesh, PartitionSpec(_BATCH))

  def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays from this process's slice of a batch."""
    return {
      name: jax.make_array_from_process_local_data(self.batch, array)
      for name, array in batch.items()
    }

  def replicate(self, tree: Any) -> Any:
    """The same values on every device."""
    return jax.device_put(tree, self.replicated)

  def batch_shape(
    self, shape: tuple[int, ...], dtype: Any
  ) -> jax.ShapeDtypeStruct:
    """A batch's shape with its sharding, to compile for."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=self.batch)

  def replicated_shapes(self, tree: Any) -> Any:
    """The shapes of `tree` with the replicated sharding, to compile for."""
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=self.replicated
      ),
      tree,
    )
