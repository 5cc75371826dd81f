#!/usr/bin/env bash
# Trains on any cloud that SkyPilot knows, as a managed job: preempted machines
# are replaced, wherever there are some, and the training goes on.
#
#   pip install 'skypilot[gcp]' && sky check
#   launch/sky.sh --gpus=H100:8 --spot -- \
#     --config=configs/imagenet.py:xs --workdir=gs://BUCKET/runs/xs
#
# Flags:
#   --gpus=H100:8 | tpu-v6e-8   of each node; sky gpus list names them
#   --nodes=1                   a TPU slice is one node
#   --spot                      cheaper, and may be preempted
#   --infra=gcp/us-east5        where, if it matters
#   --name=mobilevit            for sky jobs queue, logs and cancel
#
# `launch/sky.sh node` is what runs on each node. DRY_RUN=1 prints the command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

# JAX knows TPU slices by itself, but not SkyPilot's nodes.
node() {
  local flags="${TRAINER:?is set by launch/sky.yaml}"
  eval "trainer=($flags)" # quoted below
  if [[ "$JAX" != tpu ]] && ((SKYPILOT_NUM_NODES > 1)); then
    trainer+=("--coordinator=${SKYPILOT_NODE_IPS%%$'\n'*}:8476"
      --num_processes="$SKYPILOT_NUM_NODES"
      --process_id="$SKYPILOT_NODE_RANK")
  fi
  exec 3>&-
  exec bash launch/local.sh "${trainer[@]}"
}

case "${1:-}" in
  node) node ;;
esac
flag=([nodes]=1 [name]=mobilevit)
parse_flags "gpus= nodes= spot infra= name=" "$@"
require gpus H100:8
require_number nodes
check_trainer remote "${trainer[@]}"
spot="--${flag[spot]:+use-spot}"
[[ -n "${flag[spot]:-}" ]] || spot=--no-use-spot
jax=cuda13
if [[ "${flag[gpus]}" == tpu-* ]]; then
  jax=tpu
  if ((flag[nodes] > 1)); then
    die "--nodes=${flag[nodes]}: a TPU slice is one node; take a larger --gpus"
  fi
fi
need sky "pip install 'skypilot[gcp]'"

run sky jobs launch --yes --name="${flag[name]}" --gpus="${flag[gpus]}" \
  --num-nodes="${flag[nodes]}" ${flag[infra]:+--infra="${flag[infra]}"} \
  "$spot" \
  --env=JAX="$jax" --env=TRAINER="$(quoted "${trainer[@]}")" launch/sky.yaml
