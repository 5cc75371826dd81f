import socket
import subprocess
import sys

import numpy as np
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


_SLOW = """
import sys, time
from mobilevit_jax.run import distributed

def work():
  time.sleep(40)  # longer than a collective waits
  return "it took long"

distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
print(distributed.from_first(work), sys.argv[2])
"""


@pytest.mark.slow
def test_processes_wait_for_the_first_however_long_it_works(tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _SLOW, address, str(index)],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    for index in range(2)
  ]
  printed = [process.communicate(timeout=200)[0] for process in processes]
  # Gloo, which joins them, prints lines of its own.
  last = [stdout.splitlines()[-1] for stdout in printed]
  assert last == ["it took long 0", "it took long 1"]


def test_one_process_gathers_what_it_has():
  rows = np.arange(6.0).reshape(3, 2)
  assert distributed.gather(rows) is rows
  assert distributed.from_first(lambda: "alone") == "alone"
