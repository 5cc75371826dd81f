#!/usr/bin/env bash
# Makes .venv on this machine and installs what training needs.
#
#   launch/install.sh cpu | cuda13 | cuda12 | tpu
#
# Takes uv where it is found and installs it otherwise: a TPU VM has Python
# 3.10, and uv brings 3.12. DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

case "${1:-}" in
  cpu) jax=jax ;;
  cuda13 | cuda12 | tpu) jax="jax[$1]" ;;
  "") die "no accelerator named: say cpu, cuda13, cuda12 or tpu" ;;
  *) die "unknown accelerator '$1': say cpu, cuda13, cuda12 or tpu" ;;
esac
if (($# > 1)); then
  die "unexpected argument '$2': say cpu, cuda13, cuda12 or tpu alone"
fi

if ! command -v uv >/dev/null; then
  run python3 -m pip install --quiet --user 'uv>=0.8,<1'
  PATH="$HOME/.local/bin:$PATH"
fi
run uv venv --quiet --allow-existing --python 3.12 .venv
# In one go, so that JAX and its plugin are of one version.
run uv pip install --quiet --python .venv/bin/python \
  -r requirements.txt "$jax"
if [[ "$1" == cpu && -z "$(find_jemalloc)" ]]; then
  note "libjemalloc.so.2 is not installed; with it training on CPU is faster:" \
    "apt install libjemalloc2, and see docs/benchmarks/train.md"
fi
