"""One mesh over all devices of all processes; the only file that says Mesh."""

from collections.abc import Mapping, Sequence
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
    # One axis: nets of this size fit on every device, so only data is divided.
    mesh = Mesh(np.asarray(devices), (_BATCH,), axis_types=(AxisType.Auto,))
    self.num_devices = len(devices)
    self.replicated = NamedSharding(mesh, PartitionSpec())
    self.batch = NamedSharding(mesh, PartitionSpec(_BATCH))

  def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    # Each process has its own rows; together they are one array.
    """Global arrays from this process's slice of a batch."""
    return {
      name: jax.make_array_from_process_local_data(self.batch, array)
      for name, array in batch.items()
    }

  def own_rows(self, tree: Any) -> Any:
    """This process's slice of a batch's outputs, as NumPy's arrays."""

    # In the order of the rows: devices may list their shards in any.
    def rows(array: jax.Array) -> np.ndarray:
      shards = sorted(
        array.addressable_shards, key=lambda shard: shard.index[0].start or 0
      )
      return np.concatenate([np.asarray(shard.data) for shard in shards])

    return jax.tree.map(rows, tree)

  def replicate(self, tree: Any) -> Any:
    """The same values on every device."""
    return jax.device_put(tree, self.replicated)

  def batch_shapes(
    self, spec: Mapping[str, tuple[tuple[int, ...], Any]], batch: int
  ) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch's shapes with their sharding, to compile for.

    Args:
      spec: name to shape and type of one example's array.
      batch: examples over all devices.
    """
    return {
      name: jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=self.batch)
      for name, (shape, dtype) in spec.items()
    }

  def replicated_shapes(self, tree: Any) -> Any:
    """The shapes of `tree` with the replicated sharding, to compile for."""
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=self.replicated
      ),
      tree,
    )
