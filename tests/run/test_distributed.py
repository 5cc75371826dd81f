import pytest

from mobilevit_jax import config
from mobilevit_jax.run import distributed


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"coordinator": "host:1"}, "go together"),
    ({"num_processes": 2, "process_id": 0}, "go together"),
    (
      {"coordinator": "host:1", "num_processes": 2, "process_id": 2},
      "--process_id=2 must be from 0",
    ),
  ],
)
def test_incomplete_flags_are_refused(fields, message):
  with pytest.raises(config.ConfigError, match=message):
    distributed.initialize(**fields)


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({}, False),
    # An interactive shell inside an allocation.
    ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}, False),
    ({"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, False),
    ({"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}, True),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    (
      {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
      True,
    ),
  ],
)
def test_cluster_is_found_by_its_environment(environment, expected):
  assert distributed.is_cluster(environment) == expected
