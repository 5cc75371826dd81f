"""Whether a long run takes more and more: memory, files, threads, workers.

    python -m tests.endurance [STEPS]

trains a tiny net on the digits for STEPS steps (20,000), with two workers, and
prints what its process holds after the first 1,000 and at the end.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

FIRST = 1000
MEMORY = pathlib.Path("/dev/shm")


def held(pid: int) -> dict[str, float]:
  """What a process holds: MB, descriptors, threads, children, files."""
  process = pathlib.Path(f"/proc/{pid}")
  status = dict(
    line.split(":", 1) for line in (process / "status").read_text().splitlines()
  )
  return {
    "memory, MB": int(status["VmRSS"].split()[0]) / 1024,
    "file descriptors": len([*(process / "fd").iterdir()]),
    "threads": int(status["Threads"]),
    "files in /dev/shm": sum(
      path.is_file() for path in MEMORY.glob("mobilevit-*/*")
    ),
    "MB in /dev/shm": sum(
      path.stat().st_size
      for path in MEMORY.rglob("*")
      if path.is_file() and path.stat().st_uid == os.getuid()
    )
    / 2**20,
  }


def main() -> int:
  """Runs it; prints a line each thousand steps, then the two ends."""
  steps = int(sys.argv[1]) if sys.argv[1:] else 20_000
  with tempfile.TemporaryDirectory() as workdir:
    command = [sys.executable, "-m", "mobilevit_jax.main"]
    command += ["--config=tests/tiny_config.py", f"--workdir={workdir}"]
    for field, value in {
      "plan.num_steps": steps,
      "plan.base_batch": 8,
      "data.num_workers": 2,
      "eval.every_epochs": 25,
      "checkpoint.every_steps": 500,
      "log_every_steps": FIRST,
    }.items():
      command.append(f"--config.{field}={value}")
    begin, rows = time.monotonic(), {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
      assert run.stdout is not None
      for line in run.stdout:
        words = line.split()
        if words[:1] == ["step"] and "loss" in words:
          step = int(words[1].partition("/")[0])
          rows[step] = held(run.pid)
          what = ", ".join(f"{k} {v:.0f}" for k, v in rows[step].items())
          seconds = time.monotonic() - begin
          print(f"step {step}, {seconds:.0f} s: {what}", flush=True)
    if run.returncode:
      return run.returncode
  print(f"{'':<20}{f'step {min(rows)}':>12}{f'step {max(rows)}':>12}")
  for name, first in rows[min(rows)].items():
    print(f"{name:<20}{first:>12.1f}{rows[max(rows)][name]:>12.1f}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
