#!/usr/bin/env bash
# Trains on a Cloud TPU slice, v4 to v6e, through gcloud compute tpus. TPU7x and
# later are not served by that API: see launch/xpk.sh.
#
#   launch/tpu_vm.sh train --name=N --zone=Z --type=v6e-16 --spot -- \
#     --config=configs/imagenet.py:xs --workdir=gs://BUCKET/runs/xs
#
# train does it all: creates the slice, installs the last commit on every host,
# starts the training, watches it, and deletes the slice when it is done. A
# slice that is preempted is created again, and the training goes on where it
# saved. An error of the training ends it, with the slice kept for a look. If
# train itself is interrupted, the training goes on; call it again to watch.
#
# The same by hand, each with --name and --zone:
#   create   --type=T [--spot] [--queue]     setup
#   start    -- TRAINER_FLAGS                state    of slice and training
#   logs     [--worker=I]                    stop     saves first
#   delete   [--queue]
#
# Flags:
#   --name, --zone, --project       of the slice; gcloud's own project if unset
#   --type                          v4-32, v5litepod-16, v5p-32, v6e-16, ...
#   --spot                          cheaper, and may be preempted
#   --queue                         wait in line with a queued resource
#   --runtime                       in place of the type's own
#   --service_account               who reads and writes the bucket
#   --extra='--network=N --tags=T'  more flags for create
#   --max_restarts=100              for train; --keep leaves the slice when done
#
# POLL_SECONDS=60 is how often train looks. DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

poll_seconds="${POLL_SECONDS:-60}"
archive=build/mobilevit.tar.gz
# Taken once, so that a slice that is created again gets the same code.
commit="$(git rev-parse HEAD 2>/dev/null || echo HEAD)"

gcloud_tpus() {
  run gcloud compute tpus "$1" "$2" "${@:3}" "${where[@]}"
}

# on WORKER COMMAND
on() {
  gcloud_tpus tpu-vm ssh "${flag[name]}" --quiet --worker="$1" --command="$2"
}

runtime_of() {
  case "$1" in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5e-*) die "--type=$1 is called v5litepod-${1#v5e-} here" ;;
    tpu7* | v7*) die "--type=$1: the Cloud TPU API ends at v6e; use" \
      "launch/xpk.sh" ;;
    *) die "--type=$1 must be v4-N, v5litepod-N, v5p-N or v6e-N" ;;
  esac
}

create() {
  local options=(--accelerator-type="${flag[type]}") extra=()
  if [[ -n "${flag[spot]:-}" ]]; then
    options+=(--spot)
  fi
  if [[ -n "${flag[service_account]:-}" ]]; then
    options+=(--service-account="${flag[service_account]}")
  fi
  read -ra extra <<<"${flag[extra]:-}"
  options+=("${extra[@]}")
  if [[ -n "${flag[queue]:-}" ]]; then
    gcloud_tpus queued-resources create "${flag[name]}" \
      --node-id="${flag[name]}" --runtime-version="$runtime" "${options[@]}"
  else
    gcloud_tpus tpu-vm create "${flag[name]}" --version="$runtime" \
      "${options[@]}"
  fi
}

delete() {
  if [[ -n "${flag[queue]:-}" ]]; then
    gcloud_tpus queued-resources delete "${flag[name]}" --force --quiet
  else
    gcloud_tpus tpu-vm delete "${flag[name]}" --quiet
  fi
}

setup() {
  if ! git diff --quiet HEAD 2>/dev/null; then
    note "what is not committed is not installed"
  fi
  run mkdir -p "$(dirname "$archive")" &&
    run git archive --format=tar.gz --output="$archive" "$commit" &&
    gcloud_tpus tpu-vm scp "$archive" "${flag[name]}:mobilevit.tar.gz" \
      --quiet --worker=all &&
    on all "rm -rf mobilevit && mkdir mobilevit &&\
 tar xzf mobilevit.tar.gz -C mobilevit && bash mobilevit/launch/install.sh tpu"
}

start() {
  on all "bash mobilevit/launch/tpu_host.sh start $(quoted "${trainer[@]}")"
}

# described KIND FIELD: the state as gcloud has it, MISSING, or UNKNOWN.
described() {
  local answer
  if answer="$(gcloud_tpus "$1" describe "${flag[name]}" \
    --format="value($2)" 2>&1)"; then
    answer="${answer##*$'\n'}" # warnings come first
    echo "${answer:-UNKNOWN}"
  elif [[ "$answer" == *NOT_FOUND* ]]; then
    echo MISSING
  else
    note "$answer"
    echo UNKNOWN
  fi
}

slice_state() {
  local state
  if [[ -z "${flag[queue]:-}" ]]; then
    described tpu-vm state
    return
  fi
  state="$(described queued-resources state.state)"
  if [[ "$state" == ACTIVE ]]; then
    state="$(described tpu-vm state)"
    # The request outlives a slice that was taken away.
    state="${state/MISSING/SUSPENDED}"
  fi
  echo "$state"
}

# What all hosts say of the training, in a word: running, done, stopped, none,
# unreachable, or "failed CODE".
training_state() {
  local answer code
  if ! answer="$(on all "bash mobilevit/launch/tpu_host.sh status")"; then
    echo unreachable
    return
  fi
  code="$(sed -n 's/^worker: exit //p' <<<"$answer" | grep -vxE '0|143' |
    head -n 1 || true)"
  if [[ -n "$code" ]]; then
    echo "failed $code"
  elif [[ "$answer" == *"worker: running"* ]]; then
    echo running
  elif [[ "$answer" == *"worker: exit 143"* ]]; then
    echo stopped
  elif [[ "$answer" == *"worker: none"* ]]; then
    echo none
  elif [[ "$answer" == *"worker: exit 0"* ]]; then
    echo 'done'
  else
    echo unreachable
  fi
}

# Creates the slice, or the one that was lost, and waits until it is READY.
make_ready() {
  local state="" answer trouble=0
  while true; do
    state="$(slice_state)"
    case "$state" in
      READY) return ;;
      MISSING)
        note "${flag[name]}: creating it"
        if ! answer="$(create 2>&1)"; then
          case "$answer" in
            *RESOURCE_EXHAUSTED* | *UNAVAILABLE* | *"no more capacity"*)
              note "no capacity in ${flag[zone]} now: trying again" ;;
            *) fail "${flag[name]} can't be created: $answer" ;;
          esac
        fi
        ;;
      PREEMPTED | TERMINATED | SUSPENDED)
        note "${flag[name]} is $state: deleting what is left of it"
        delete || ((++trouble))
        ;;
      FAILED | STOPPED)
        fail "${flag[name]} is $state: look at it with gcloud compute tpus," \
          "then delete it and try again"
        ;;
      UNKNOWN) ((++trouble)) ;;
      *) note "${flag[name]} is $state" ;;
    esac
    if ((trouble >= 10)); then
      fail "${flag[name]}: gcloud failed 10 times; see above"
    fi
    sleep "$poll_seconds"
  done
}

# Waits for the training to end, one way or another, and says how in `outcome`.
watch() {
  local strikes=0 limit state
  while true; do
    outcome="$(training_state)"
    case "$outcome" in
      running) strikes=0 ;;
      done | stopped | none) return ;;
      *)
        # When a host is taken away, the others fail before gcloud knows it, and
        # an ssh session may just break: look again before it counts.
        state="$(slice_state)"
        if [[ "$state" != READY && "$state" != UNKNOWN ]]; then
          outcome="lost ($state)"
          return
        fi
        limit=10
        if [[ "$outcome" == failed* ]]; then
          limit=2
        fi
        if ((++strikes >= limit)); then
          return
        fi
        ;;
    esac
    sleep "$poll_seconds"
  done
}

train() {
  local outcome="" starts
  if ((DRY_RUN)); then # nothing answers: one pass in which all goes well
    create
    setup
    start
    on all "bash mobilevit/launch/tpu_host.sh status"
    if [[ -z "${flag[keep]:-}" ]]; then
      delete
    fi
    return
  fi
  trap 'note "no longer watching ${flag[name]}, which trains on, and costs"
    exit 130' INT TERM
  for ((starts = 0; starts <= ${flag[max_restarts]:=100}; starts++)); do
    make_ready
    if [[ "$(training_state)" != running ]] && ! { setup && start; }; then
      sleep "$poll_seconds"
      if [[ "$(slice_state)" == READY ]]; then
        fail "${flag[name]} could not be set up; see above. It is kept, and" \
          "costs: launch/tpu_vm.sh delete ends it"
      fi
      continue
    fi
    watch
    note "${flag[name]}: training $outcome"
    case "$outcome" in
      done)
        if [[ -z "${flag[keep]:-}" ]]; then
          delete
        fi
        return
        ;;
      failed* | unreachable)
        on 0 "sudo journalctl --unit=mobilevit --lines=30 --output=cat" || true
        fail "training $outcome. ${flag[name]} is kept for a look, and costs:" \
          "launch/tpu_vm.sh delete ends it"
        ;;
    esac
    sleep "$poll_seconds"
  done
  fail "training was stopped $starts times: raise --max_restarts." \
    "${flag[name]} is kept, and costs: launch/tpu_vm.sh delete ends it"
}

command="${1:-}"
shift || true
case "$command" in
  create) parse_flags "name= zone= project= type= spot queue runtime=\
 service_account= extra=" "$@" ;;
  train) parse_flags "name= zone= project= type= spot queue runtime=\
 service_account= extra= max_restarts= keep" "$@" ;;
  delete | state) parse_flags "name= zone= project= queue" "$@" ;;
  setup | start | stop) parse_flags "name= zone= project=" "$@" ;;
  logs) parse_flags "name= zone= project= worker=" "$@" ;;
  *) die "unknown command '$command': say train, create, setup, start, state," \
    "logs, stop or delete" ;;
esac
require name mobilevit
require zone us-east5-b
where=(--zone="${flag[zone]}" ${flag[project]:+--project="${flag[project]}"})
if [[ "$command" == create || "$command" == train ]]; then
  require type v6e-16
  runtime="${flag[runtime]:-$(runtime_of "${flag[type]}")}"
fi
if [[ "$command" == start || "$command" == train ]]; then
  check_trainer remote "${trainer[@]}"
elif ((${#trainer[@]})); then
  die "$command takes no trainer's flags: leave -- and what follows out"
fi
if [[ -n "${flag[max_restarts]:-}" ]]; then
  require_number max_restarts
fi
need gcloud "install the Google Cloud CLI, https://cloud.google.com/sdk"

case "$command" in
  state)
    if ((DRY_RUN)); then
      described tpu-vm state >/dev/null
    else
      note "${flag[name]}: slice $(slice_state)"
    fi
    on all "bash mobilevit/launch/tpu_host.sh status"
    ;;
  logs) on "${flag[worker]:-0}" \
    "sudo journalctl --unit=mobilevit --follow --output=cat" ;;
  stop) on all "bash mobilevit/launch/tpu_host.sh stop" ;;
  *) "$command" ;;
esac
