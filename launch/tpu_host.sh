#!/usr/bin/env bash
# On each host of a TPU slice: the training as a systemd unit, for tpu_vm.sh.
#
#   launch/tpu_host.sh start TRAINER_FLAGS | status | stop
#
# As a unit it outlives the ssh session that started it, gets SIGTERM when the
# machine is preempted, logs to the journal, and leaves its exit code.
# `status` prints one line: "worker: running", "worker: exit CODE" or
# "worker: none".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

unit=mobilevit

status() {
  local state="" code="" value="" line
  while read -r line; do
    case "$line" in
      SubState=*) state="${line#*=}" ;;
      ExecMainCode=*) code="${line#*=}" ;;
      ExecMainStatus=*) value="${line#*=}" ;;
    esac
  done < <(systemctl show "$unit" \
    --property=SubState,ExecMainCode,ExecMainStatus)
  case "$state" in
    dead | "") echo "worker: none" ;;
    # 1 is an exit; else a signal's number, counted as shells do.
    exited | failed) echo "worker: exit $((code == 1 ? value : 128 + value))" ;;
    *) echo "worker: running" ;;
  esac
}

case "${1:-}" in
  start)
    shift
    if [[ "$(status)" == "worker: running" ]]; then
      exit
    fi
    # A unit that has ended keeps its name until it is cleared.
    sudo systemctl stop "$unit" 2>/dev/null || true
    sudo systemctl reset-failed "$unit" 2>/dev/null || true
    # KillMode=mixed: SIGTERM is for the trainer, not for its data workers.
    run sudo systemd-run --quiet --unit="$unit" --uid="$(id -un)" \
      --working-directory="$PWD" --remain-after-exit \
      --property=KillMode=mixed bash launch/local.sh "$@"
    ;;
  status) status ;;
  stop) run sudo systemctl stop "$unit" ;;
  *) die "unknown command '${1:-}': say start, status or stop" ;;
esac
