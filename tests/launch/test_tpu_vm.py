"""A training on a Cloud TPU slice, told by a fake gcloud what happens to it."""

import pytest

SLICE = ["--name=mv", "--zone=us-east5-b"]
RUN = ["--config=configs/imagenet.py:xs", "--workdir=gs://bucket/xs"]
TRAIN = ["train", *SLICE, "--type=v6e-16", "--spot"]

NODE = "tpu-vm describe"
QUEUED = "queued-resources describe"
STATUS = "tpu_host.sh status"
GONE = (1, "ERROR: NOT_FOUND: Resource 'mv' was not found")
BARE = (1, "bash: mobilevit/launch/tpu_host.sh: No such file or directory")


def says(about, *answers):
  """Answers one after the other; the last one for good."""
  answers = [a if isinstance(a, tuple) else (0, a) for a in answers]
  return [(about, *answer) for answer in answers]


def workers(*states):
  return "\n".join(f"worker: {state}" for state in states)


RUNNING = workers("running", "running")
DONE = workers("exit 0", "exit 0")
STOPPED = workers("exit 143", "exit 143")


def story(launch):
  """What was done to slice and training, in order, a word each."""
  words = []
  for call in launch.calls("gcloud"):
    line = " ".join(call)
    for text, word in {
      " create ": "create",
      " delete ": "delete",
      " scp ": "copy",
      "install.sh tpu": "install",
      "tpu_host.sh start": "start",
      "journalctl": "logs",
    }.items():
      if text in line:
        words.append(word)
  return words


BEGIN = ["create", "copy", "install", "start"]


def test_a_training_that_is_done_has_its_slice_deleted(launch):
  launch.answer(
    *says(NODE, GONE, "CREATING", "READY"),
    *says(STATUS, BARE, RUNNING, workers("exit 0", "running"), DONE),
  )
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 0, result.stderr
  assert story(launch) == [*BEGIN, "delete"]
  [create] = [call for call in launch.calls() if "create" in call]
  assert "--accelerator-type=v6e-16" in create
  assert "--version=v2-alpha-tpuv6e" in create
  assert "--spot" in create
  assert all("--zone=us-east5-b" in call for call in launch.calls("gcloud"))
  for word in ("install.sh", "start", "status"):
    [*calls] = [c for c in launch.calls("gcloud") if word in " ".join(c)]
    assert calls
    assert all("--worker=all" in call for call in calls)


def test_keep_keeps_the_slice(launch):
  launch.answer(*says(NODE, "READY"), *says(STATUS, BARE, DONE))
  assert launch("tpu_vm.sh", *TRAIN, "--keep", "--", *RUN).returncode == 0
  assert story(launch) == ["copy", "install", "start"]


@pytest.mark.parametrize(
  "last_words",
  [
    (255, "ssh: connect to host 10.0.0.1 port 22: Connection timed out"),
    (0, workers("exit 134", "running")),  # one misses the host that is gone
    (0, STOPPED),  # SIGTERM came with the preemption
  ],
  ids=["silent", "failed", "stopped"],
)
def test_a_preempted_slice_is_created_again_and_the_training_resumed(
  launch, last_words
):
  asked = ["PREEMPTED"] * (1 if last_words[1] == STOPPED else 2)
  launch.answer(
    *says(NODE, GONE, "READY", *asked, GONE, "READY"),
    *says(STATUS, BARE, RUNNING, last_words, BARE, RUNNING, DONE),
    ("git rev-parse", 0, "c0ffee"),
  )
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 0, result.stderr
  assert story(launch) == [*BEGIN, "delete", *BEGIN, "delete"]
  # With the same code and the same flags.
  archives = [call for call in launch.calls("git") if "archive" in call]
  assert len(archives) == 2
  assert all(call[-1] == "c0ffee" for call in archives)
  first, second = [c for c in launch.calls() if "tpu_host.sh start" in str(c)]
  assert first == second
  assert " ".join(RUN) in " ".join(first)


def test_a_slice_preempted_while_it_is_set_up_is_created_again(launch):
  launch.answer(
    *says(NODE, "READY", "PREEMPTED", "PREEMPTED", GONE, "READY"),
    *says(STATUS, BARE, BARE, DONE),
    ("install.sh tpu", 255, "Connection reset by peer"),
    ("install.sh tpu", 0, ""),
  )
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 0, result.stderr
  assert story(launch) == ["copy", "install", "delete", *BEGIN, "delete"]


def test_a_set_up_that_fails_on_a_sound_slice_ends_it(launch):
  launch.answer(
    *says(NODE, "READY"), *says(STATUS, BARE), ("install.sh tpu", 1, "no uv")
  )
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 1
  assert "error: mv could not be set up; see above" in result.stderr
  assert story(launch) == ["copy", "install"]


def test_a_training_stopped_on_a_sound_slice_is_started_again(launch):
  launch.answer(
    *says(NODE, "READY"), *says(STATUS, BARE, STOPPED, STOPPED, DONE)
  )
  assert launch("tpu_vm.sh", *TRAIN, "--", *RUN).returncode == 0
  again = ["copy", "install", "start"]
  assert story(launch) == [*again, *again, "delete"]


def test_an_error_of_the_training_ends_it_and_keeps_the_slice(launch):
  launch.answer(
    *says(NODE, "READY"), *says(STATUS, BARE, workers("exit 1", "exit 134"))
  )
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 1
  assert "error: training failed 1. mv is kept for a look" in result.stderr
  assert story(launch) == ["copy", "install", "start", "logs"]


def test_hosts_that_stay_silent_end_it(launch):
  launch.answer(*says(NODE, "READY"), *says(STATUS, RUNNING, (255, "timeout")))
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 1
  assert "error: training unreachable" in result.stderr
  assert story(launch) == ["logs"]


def test_called_again_it_watches_the_training_that_runs(launch):
  launch.answer(*says(NODE, "READY"), *says(STATUS, RUNNING, RUNNING, DONE))
  assert launch("tpu_vm.sh", *TRAIN, "--", *RUN).returncode == 0
  assert story(launch) == ["delete"]


def test_it_gives_up_after_so_many_restarts(launch):
  launch.answer(*says(NODE, "READY"), *says(STATUS, BARE, STOPPED))
  result = launch("tpu_vm.sh", *TRAIN, "--max_restarts=2", "--", *RUN)
  assert result.returncode == 1
  assert "error: training was stopped 3 times" in result.stderr
  assert story(launch) == ["copy", "install", "start"] * 3


def test_a_queued_slice_is_awaited_and_requested_again(launch):
  launch.answer(
    *says(QUEUED, GONE, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
    *says(QUEUED, "SUSPENDING", "SUSPENDED", GONE, "ACTIVE"),
    *says(NODE, "READY"),
    *says(STATUS, BARE, RUNNING, (255, "timeout"), BARE, DONE),
  )
  result = launch("tpu_vm.sh", *TRAIN, "--queue", "--", *RUN)
  assert result.returncode == 0, result.stderr
  assert story(launch) == [*BEGIN, "delete", *BEGIN, "delete"]
  changes = [c for c in launch.calls() if "create" in c or "delete" in c]
  assert all("queued-resources" in call for call in changes)
  assert "--node-id=mv" in changes[0]
  assert "--runtime-version=v2-alpha-tpuv6e" in changes[0]
  assert "--force" in changes[1]


def test_a_request_that_failed_ends_it(launch):
  launch.answer(*says(QUEUED, GONE, "FAILED"))
  result = launch("tpu_vm.sh", *TRAIN, "--queue", "--", *RUN)
  assert result.returncode == 1
  assert "error: mv is FAILED" in result.stderr
  assert story(launch) == ["create"]


def test_it_waits_for_capacity_but_not_for_permission(launch):
  launch.answer(
    *says(NODE, GONE),
    (" create ", 1, "ERROR: RESOURCE_EXHAUSTED: no more capacity in the zone"),
    (" create ", 1, "ERROR: PERMISSION_DENIED: on project p"),
  )
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 1
  assert "no capacity in us-east5-b now" in result.stderr
  assert "error: mv can't be created: ERROR: PERMISSION" in result.stderr
  assert story(launch) == ["create", "create"]


def test_a_gcloud_that_fails_neither_recreates_nor_loops(launch):
  launch.answer(*says(NODE, (1, "ERROR: Reauthentication failed")))
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN)
  assert result.returncode == 1
  assert "error: mv: gcloud failed 10 times" in result.stderr
  assert story(launch) == []


def test_a_dry_run_of_train_prints_one_pass(launch):
  result = launch("tpu_vm.sh", *TRAIN, "--", *RUN, DRY_RUN="1")
  assert result.returncode == 0, result.stderr
  assert launch.calls("gcloud") == []
  lines = [line for line in result.stdout.splitlines() if "gcloud" in line]
  verbs = [line.split()[4] for line in lines]
  assert verbs == ["create", "scp", "ssh", "ssh", "ssh", "delete"]


@pytest.mark.parametrize(
  ("shown", "said"),
  [
    ("SubState=running\nExecMainCode=0\nExecMainStatus=0", "running"),
    ("SubState=stop-sigterm\nExecMainCode=0\nExecMainStatus=0", "running"),
    ("ExecMainCode=1\nExecMainStatus=0\nSubState=exited", "exit 0"),
    ("ExecMainCode=1\nExecMainStatus=143\nSubState=failed", "exit 143"),
    ("ExecMainCode=1\nExecMainStatus=1\nSubState=failed", "exit 1"),
    ("ExecMainCode=2\nExecMainStatus=9\nSubState=failed", "exit 137"),
    ("ExecMainCode=0\nExecMainStatus=0\nSubState=dead", "none"),
  ],
)
def test_a_host_says_how_its_unit_is(launch, shown, said):
  launch.answer(("systemctl show", 0, shown))
  assert launch("tpu_host.sh", "status").stdout == f"worker: {said}\n"


def test_a_host_starts_the_trainer_as_a_unit_once(launch):
  launch.answer(("systemctl show", 0, "SubState=dead"))
  assert launch("tpu_host.sh", "start", *RUN).returncode == 0
  unit = launch.calls("sudo")[-1]
  assert unit[1] == "systemd-run"
  assert "--unit=mobilevit" in unit
  assert f"--working-directory={launch.tree}" in unit
  assert unit[-4:] == ["bash", "launch/local.sh", *RUN]

  launch.answer(("systemctl show", 0, "SubState=running"))
  assert launch("tpu_host.sh", "start", *RUN).returncode == 0
  assert launch.calls("sudo")[-1] == unit
  assert len([c for c in launch.calls("sudo") if "systemd-run" in c]) == 1
