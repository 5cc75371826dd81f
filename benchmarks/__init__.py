"""Speed on this machine: `python -m benchmarks`, in a checkout."""
