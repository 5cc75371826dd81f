# shellcheck shell=bash
# What the launch scripts share. They source it from the repository's root; it
# runs nothing by itself.
#
# Exit codes: 0 done, 1 the training or a command failed, 2 wrong arguments,
# 143 stopped with its state saved (where a script waits for the training).

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: bash $BASH_VERSION is too old: install 4.4 or newer" >&2
  exit 2
fi

# Without DRY_RUN=1 a command runs; anything but 1, 0 and nothing is a typo that
# must not cost a cluster.
case "${DRY_RUN:-0}" in
  0 | 1) DRY_RUN="${DRY_RUN:-0}" ;;
  *)
    echo "error: DRY_RUN=$DRY_RUN must be 1 or 0" >&2
    exit 2
    ;;
esac

# Commands of a dry run go here, also from inside $(...).
exec 3>&1

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# What went wrong is no matter of the arguments.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

note() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

# The comment that opens a script is its help.
case "${1:-}" in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac

# The words as one line that a shell reads back as the same words.
quoted() {
  local word line=""
  for word; do
    if [[ ! "$word" =~ ^[[:alnum:]_@%+=:,./-]+$ ]]; then
      word="'${word//\'/\'\\\'\'}'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Runs a command, or prints it in a dry run.
run() {
  if ((DRY_RUN)); then
    quoted "$@" >&3
  else
    "$@"
  fi
}

# need TOOL WHERE: stops unless the tool can be run, or this is a dry run.
need() {
  if ((!DRY_RUN)) && ! command -v "$1" >/dev/null; then
    die "$1 is not on the PATH: $2"
  fi
}

# The allocator that pays where the CPU trains; nothing where it isn't
# installed, or an accelerator trains.
find_jemalloc() {
  local file
  for file in /dev/nvidia0 /dev/accel0 /dev/vfio/0; do
    if [[ -e "$file" ]]; then
      return
    fi
  done
  for file in /usr/lib/*/libjemalloc.so.2 /usr/lib64/libjemalloc.so.2 \
    /usr/local/lib/libjemalloc.so.2; do
    if [[ -e "$file" ]]; then
      printf '%s\n' "$file"
      return
    fi
  done
}

# parse_flags ALLOWED ARGUMENT...: fills flag[name] and, with what follows --,
# trainer. ALLOWED lists names; one that ends in = takes a value.
declare -A flag=()
trainer=()
# shellcheck disable=SC2034  # trainer is for the scripts that source this
parse_flags() {
  local allowed=" $1 " argument name shown
  shown="$(sed -E 's/([^ ]+)/--\1/g' <<<"$1")"
  shift
  while (($#)); do
    argument="$1"
    shift
    name="${argument#--}"
    name="${name%%=*}"
    if [[ "$argument" == "--" ]]; then
      trainer=("$@")
      return
    elif [[ "$argument" != --* ]]; then
      die "unexpected argument '$argument': flags are --name=value, and" \
        "the trainer's follow --"
    elif [[ "$allowed" == *" $name= "* ]]; then
      if [[ "$argument" != *=?* ]]; then
        die "--$name needs a value: write --$name=VALUE"
      fi
      flag[$name]="${argument#*=}"
    elif [[ "$allowed" == *" $name "* ]]; then
      if [[ "$argument" == *=* ]]; then
        die "--$name takes no value: write --$name alone"
      fi
      flag[$name]=1
    else
      die "unknown flag --$name: here are ${shown:-no flags}, and the" \
        "trainer's follow --"
    fi
  done
}

# require NAME EXAMPLE
require() {
  if [[ -z "${flag[$1]:-}" ]]; then
    die "--$1 is missing: add it, such as --$1=$2"
  fi
}

# require_number NAME: a whole number from 1.
require_number() {
  if [[ ! "${flag[$1]}" =~ ^[1-9][0-9]*$ ]]; then
    die "--$1=${flag[$1]} must be a whole number from 1"
  fi
}

# check_trainer [remote] FLAG...: finds here what the trainer would refuse on
# hardware that is already paid for.
check_trainer() {
  local remote="" word config="" workdir=""
  if [[ "${1:-}" == remote ]]; then
    remote=1
    shift
  fi
  for word; do
    case "$word" in
      --config=*) config="${word#*=}" ;;
      --workdir=*) workdir="${word#*=}" ;;
    esac
  done
  if [[ -z "$config" ]]; then
    die "the trainer's --config is missing: add" \
      "--config=configs/imagenet.py:xs"
  fi
  if [[ ! -f "${config%%:*}" ]]; then
    die "--config=$config: ${config%%:*} is no file in $PWD"
  fi
  if [[ -z "$workdir" ]]; then
    die "the trainer's --workdir is missing: add" \
      "--workdir=${remote:+gs://BUCKET/}runs/NAME"
  fi
  if [[ -n "$remote" && "$workdir" != gs://* ]]; then
    die "--workdir=$workdir would be lost with its machine: give one in a" \
      "bucket, such as gs://BUCKET/runs/NAME"
  fi
}
