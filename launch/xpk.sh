#!/usr/bin/env bash
# Trains on TPU7x (Ironwood) and later, which only GKE and Compute Engine serve,
# through xpk; v4 to v6e go as well. All flags but --type are the same in every
# command.
#
#   pip install 'xpk>=1.16,<2'; gcloud, kubectl, docker
#   launch/xpk.sh cluster --name=N --zone=Z --type=tpu7x-16 --spot
#   launch/xpk.sh image   --image=us-docker.pkg.dev/PROJECT/REPOSITORY/mobilevit
#   launch/xpk.sh train   --name=N --zone=Z --type=tpu7x-16 --image=... -- \
#     --config=configs/imagenet.py:xs --workdir=gs://BUCKET/runs/xs
#   launch/xpk.sh wait    --name=N --zone=Z      0: done; 125: failed
#   launch/xpk.sh logs    --name=N
#   launch/xpk.sh delete  --name=N --zone=Z      the training; it saves first
#   launch/xpk.sh delete_cluster --name=N --zone=Z
#
# A training that stopped after SIGTERM (143), or lost a node, is started again
# when there is capacity, and goes on where it saved; one that is done or ended
# with an error (1) is not.
#
# Flags:
#   --name, --zone, --project    of cluster and training
#   --type                       tpu7x-16 has 16 cores: 8 chips on 2 hosts
#   --spot, --reservation=R      for cluster; on demand without
#   --max_restarts=50            for train
#
# DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

cluster() {
  local capacity=--on-demand
  if [[ -n "${flag[spot]:-}" ]]; then
    capacity=--spot
  elif [[ -n "${flag[reservation]:-}" ]]; then
    capacity="--reservation=${flag[reservation]}"
  fi
  run xpk cluster create "${where[@]}" --tpu-type="${flag[type]}" "$capacity"
}

image() {
  if ((DRY_RUN)); then
    printf '%s | ' "$(quoted git archive HEAD)"
    run docker build --file=launch/Dockerfile --tag="${flag[image]}" -
  else
    git archive HEAD |
      docker build --file=launch/Dockerfile --tag="${flag[image]}" -
  fi
  run docker push "${flag[image]}"
}

train() {
  # exec: xpk sends SIGTERM to the shell that it runs this in, so Python has to
  # take that shell's place to hear it and save.
  run xpk workload create "${where[@]}" --workload="${flag[name]}" \
    --tpu-type="${flag[type]}" --docker-image="${flag[image]}" \
    --max-restarts="${flag[max_restarts]:-50}" \
    --termination-grace-period-seconds=60 \
    --command="cd /mobilevit && exec bash launch/local.sh\
 $(quoted "${trainer[@]}")"
}

command="${1:-}"
shift || true
case "$command" in
  cluster) parse_flags "name= zone= project= type= spot reservation=" "$@" ;;
  image) parse_flags "image=" "$@" ;;
  train) parse_flags \
    "name= zone= project= type= image= max_restarts=" "$@" ;;
  wait | delete | delete_cluster) parse_flags "name= zone= project=" "$@" ;;
  logs) parse_flags "name=" "$@" ;;
  *) die "unknown command '$command': say cluster, image, train, wait, logs," \
    "delete or delete_cluster" ;;
esac
where=()
if [[ "$command" != image ]]; then
  require name mobilevit
fi
if [[ "$command" != image && "$command" != logs ]]; then
  require zone us-central1-c
  where=(--cluster="${flag[name]}" --zone="${flag[zone]}"
    ${flag[project]:+--project="${flag[project]}"})
fi
if [[ "$command" == cluster || "$command" == train ]]; then
  require type tpu7x-16
fi
if [[ "$command" == image || "$command" == train ]]; then
  require image us-docker.pkg.dev/PROJECT/REPOSITORY/mobilevit
fi
if [[ "$command" == train ]]; then
  check_trainer remote "${trainer[@]}"
elif ((${#trainer[@]})); then
  die "$command takes no trainer's flags: leave -- and what follows out"
fi
if [[ -n "${flag[max_restarts]:-}" ]]; then
  require_number max_restarts
fi

case "$command" in
  image) need docker "install Docker" ;;
  logs) need kubectl "gcloud components install kubectl" ;;
  *) need xpk "pip install 'xpk>=1.16,<2'" ;;
esac

case "$command" in
  wait) run xpk workload list "${where[@]}" \
    --wait-for-job-completion="${flag[name]}" ;;
  logs) run kubectl logs --follow --tail=100 --container=jax-tpu --selector="\
jobset.sigs.k8s.io/jobset-name=${flag[name]},\
batch.kubernetes.io/job-completion-index=0" ;;
  delete) run xpk workload delete "${where[@]}" --workload="${flag[name]}" \
    --force ;;
  delete_cluster) run xpk cluster delete "${where[@]}" --force ;;
  *) "$command" ;;
esac
