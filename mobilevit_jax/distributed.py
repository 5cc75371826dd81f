"""Joining the other processes of a run, where there are any."""

from collections.abc import Mapping
import importlib.util
import os

import jax


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Starts JAX's distributed runtime; call it before anything uses a device.

  Args:
    coordinator: `HOST:PORT` of process 0; with it the other two are needed.
      Without any, processes find each other on Cloud TPU, under Slurm and in
      Kubernetes jobs, and a process that is alone stays so.
    num_processes: of the whole run.
    process_id: of this one, from 0.

  Raises:
    ValueError: if only some are given, or one is out of range.
  """
  given = (coordinator, num_processes, process_id)
  if given == (None, None, None):
    if is_cluster(os.environ) or importlib.util.find_spec("libtpu"):
      jax.distributed.initialize()
    return
  if coordinator is None or num_processes is None or process_id is None:
    raise ValueError(
      "--coordinator, --num_processes and --process_id go together; "
      f"got {coordinator}, {num_processes} and {process_id}"
    )
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f"--process_id={process_id} must be from 0 to --num_processes="
      f"{num_processes} less 1"
    )
  jax.distributed.initialize(coordinator, num_processes, process_id)


def is_cluster(environment: Mapping[str, str]) -> bool:
  """Whether Slurm or Kubernetes started several processes for this run."""
  slurm = int(environment.get("SLURM_NTASKS", "1")) > 1
  # Set in each task of a step, not in a shell that merely holds a job.
  in_step = "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment
  job = "KUBERNETES_SERVICE_HOST" in environment
  return (slurm and in_step) or (job and "JOB_COMPLETION_INDEX" in environment)
