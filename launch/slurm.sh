#!/usr/bin/env bash
# Submits a training to a Slurm cluster of GPU nodes.
#
#   launch/install.sh cuda13       # once, on a disk that every node sees
#   launch/slurm.sh --nodes=2 --gpus_per_node=8 --time=24:00:00 -- \
#     --config=configs/imagenet.py:xs --workdir=/shared/runs/xs
#
# The job saves and queues itself again when it is preempted or its time runs
# out, until the training is done; launch/slurm.sbatch says how.
#
# Flags:
#   --nodes, --gpus_per_node     how many (1, and 8)
#   --process_per=gpu | node     gpu: a process for every GPU, as JAX takes
#                                Slurm to mean it; node: one for all of a node's
#   --cpus_per_gpu=8             decoding JPEGs is what they do
#   --time=HH:MM:SS              of one stay; --partition, --account, --qos
#   --name=mobilevit             of the job; its log is runs/NAME-JOB.log
#   --extra='--constraint=h100'  more flags for sbatch
#
# DRY_RUN=1 prints the command; DRY_RUN=1 launch/slurm.sbatch prints the job's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

flag=([nodes]=1 [gpus_per_node]=8 [process_per]=gpu [cpus_per_gpu]=8
  [name]=mobilevit)
parse_flags "nodes= gpus_per_node= process_per= cpus_per_gpu= time= partition=\
 account= qos= name= extra=" "$@"
require_number nodes
require_number gpus_per_node
require_number cpus_per_gpu
require time 24:00:00
check_trainer "${trainer[@]}"
case "${flag[process_per]}" in
  gpu) tasks="${flag[gpus_per_node]}" cpus="${flag[cpus_per_gpu]}" ;;
  node) tasks=1 cpus=$((flag[cpus_per_gpu] * flag[gpus_per_node])) ;;
  *) die "--process_per=${flag[process_per]} must be gpu or node" ;;
esac
need sbatch "run this on a login node of the cluster"

options=()
for name in partition account qos; do
  if [[ -n "${flag[$name]:-}" ]]; then
    options+=("--$name=${flag[$name]}")
  fi
done
read -ra extra <<<"${flag[extra]:-}"
run mkdir -p runs
run sbatch --job-name="${flag[name]}" --output="runs/${flag[name]}-%j.log" \
  --nodes="${flag[nodes]}" --gpus-per-node="${flag[gpus_per_node]}" \
  --ntasks-per-node="$tasks" --cpus-per-task="$cpus" --time="${flag[time]}" \
  "${options[@]}" "${extra[@]}" launch/slurm.sbatch "${trainer[@]}"
