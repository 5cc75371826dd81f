#!/usr/bin/env bash
# Trains on this machine: a workstation with or without GPUs, or one host of
# many, where the other launchers end. What follows is the trainer's.
#
#   launch/install.sh cuda13
#   launch/local.sh --config=configs/imagenet.py:xs --workdir=runs/xs
#
# Its exit code is the trainer's: 0 done, 143 or 130 stopped and saved (the same
# command continues), 1 an error. Takes .venv/bin/python, or $PYTHON.
#
# It sets, where you have not:
#   MALLOC_ARENA_MAX=4   glibc keeps fewer arenas: less memory, the same speed
#   JEMALLOC=FILE        where no accelerator is: libjemalloc.so.2, if installed.
#                        XLA frees all it used after each step; this allocator
#                        keeps it. docs/benchmarks/train.md. JEMALLOC= for none.
#   CPU_DEVICES=N        only if you set it: the CPU as N devices, which keeps N
#                        cores busier; N has to divide every batch.
#
# DRY_RUN=1 prints the command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

python="${PYTHON:-.venv/bin/python}"
check_trainer "$@"
need "$python" "run launch/install.sh cpu, cuda13 or tpu first, or set PYTHON"

settings=("MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-4}")
jemalloc="${JEMALLOC-$(find_jemalloc)}"
if [[ -n "$jemalloc" && -z "${LD_PRELOAD:-}" ]]; then
  keep="dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"
  settings+=("LD_PRELOAD=$jemalloc" "MALLOC_CONF=${MALLOC_CONF:-$keep}")
fi
if [[ -n "${CPU_DEVICES:-}" ]]; then
  devices="--xla_force_host_platform_device_count=$CPU_DEVICES"
  settings+=("XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }$devices")
fi
command=(env "${settings[@]}" "$python" -m mobilevit_jax.main "$@")
if ((DRY_RUN)); then
  run "${command[@]}"
  exit
fi
# exec: signals must reach Python, and its exit code whoever asked.
exec 3>&-
exec "${command[@]}"
