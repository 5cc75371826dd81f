"""The folder for the Hub: whole, with a card that says what is recorded.

That timm and transformers load it is shown in tests/parity/test_files.py.
"""

import base64
from http import server
import json
import sys
import threading
import types
from typing import Any

from huggingface_hub import constants
import pytest

from configs import digits
from mobilevit_jax import __version__
from mobilevit_jax import create_model
from mobilevit_jax.weights import __main__ as command
from mobilevit_jax.weights import card
from mobilevit_jax.weights import load_weights
from mobilevit_jax.weights import save_weights
from mobilevit_jax.weights import source
from mobilevit_jax.weights import trees


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  path = tmp_path_factory.mktemp("weights") / "w.safetensors"
  save_weights(
    create_model("mobilevit_xxs", num_classes=3), path, labels=["a", "b", "c"]
  )
  return path


def _write(weights, folder, *more):
  return command.main([str(weights), str(folder), "--to=hub", *more])


def test_folder_holds_the_weights_twice_and_can_be_read_back(weights, tmp_path):
  folder = tmp_path / "hub"
  assert _write(weights, folder, "--license=cc0-1.0") == 0
  config = json.loads((folder / "config.json").read_text())
  assert config["architecture"] == "mobilevit_xxs"
  assert config["label_names"] == ["a", "b", "c"]
  assert int(256 / config["pretrained_cfg"]["crop_pct"]) == 288
  assert "license: cc0-1.0\n" in (folder / "README.md").read_text()
  expected = trees.flat_model(load_weights(create_like(), weights))
  for path in (folder, folder / "transformers"):
    found = source.read_weights(path)
    assert found.labels == ("a", "b", "c")
    loaded = trees.flat_model(load_weights(create_like(), path))
    for name, value in expected.items():
      assert (loaded[name] == value).all(), name
  assert _write(weights, folder) == 1  # it is not replaced unasked


def create_like():
  return create_model("mobilevit_xxs", num_classes=3, seed=1)


def test_card_tells_the_run(tmp_path):
  config = {"version": __version__, **digits.get_config().to_dict()}
  (tmp_path / "config.json").write_text(json.dumps(config))
  start = {"time": 0, "step": 0, "command": "mobilevit train --config=digits"}
  (tmp_path / "starts.jsonl").write_text(json.dumps(start) + "\n")
  lines = [
    {"step": 5, "kind": "eval", "ema_top1": 0.25, "images": 8},
    {"step": 9, "kind": "eval", "ema_top1": 0.5, "raw_top1": 0.1, "images": 8},
  ]
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 9, "ki'
  (tmp_path / "metrics.jsonl").write_text(text)
  names = tuple("0123456789")
  found = source.FoundWeights(str(tmp_path), {}, names, {}, which="ema", step=9)
  made = card.text(found, "mobilevit_xxs", names)
  assert "| top1 | 0.5000 |" in made and "0.25" not in made
  assert "On 8 images that were held out" in made
  assert "mobilevit train --config=digits" in made
  assert '| `data.name` | `"digits"` |' in made
  assert "no licence is stated" in made and "license:" not in made


def test_nothing_is_uploaded_without_being_asked(
  weights, tmp_path, monkeypatch, capsys
):
  calls = []

  class Api:
    def create_repo(self, repo, **options):
      calls.append((repo, options))

    def upload_folder(self, **options):
      if "fail" in options["repo_id"]:
        raise RuntimeError("401 Unauthorized\nmore")
      calls.append(sorted(options))
      return types.SimpleNamespace(commit_url="https://hub/commit")

  hub = types.SimpleNamespace(HfApi=Api)
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  assert _write(weights, tmp_path / "a") == 0
  assert calls == []
  assert _write(weights, tmp_path / "b", "--push=me/net") == 0
  assert calls[0] == ("me/net", {"private": True, "exist_ok": True})
  assert capsys.readouterr().out.endswith("https://hub/commit\n")
  for repo, why in (("me/fail", "401 Unauthorized; "), ("x", "owner/name")):
    assert _write(weights, tmp_path / repo.replace("/", "_"), f"--push={repo}")
    assert why in capsys.readouterr().err


class _Hub(server.BaseHTTPRequestHandler):
  """A stand-in for the Hub: it answers what huggingface_hub asks."""

  def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"]))
    asked = self.server.asked
    asked.append((self.path, self.headers["Authorization"], body))
    here = f"http://{self.headers['Host']}/me/net"
    answer, status = {}, 200
    if self.server.status != 200:
      answer, status = {"error": "no"}, self.server.status
    elif self.path == "/api/repos/create":
      answer = {"url": here}
    elif "/preupload/" in self.path:
      answer["files"] = [
        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
        for file in json.loads(body)["files"]
      ]
    elif "/commit/" in self.path:
      answer = {"commitUrl": f"{here}/commit/1", "commitOid": "1"}
    text = json.dumps(answer).encode()
    self.send_response(status)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(len(text)))
    self.end_headers()
    self.wfile.write(text)

  def log_message(self, *args):
    pass


@pytest.fixture
def hub(monkeypatch):
  """The server; `asked` are its requests, and `status` what it answers with."""
  web: Any = server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
  web.asked, web.status = [], 200
  threading.Thread(target=web.serve_forever, daemon=True).start()
  address = f"http://127.0.0.1:{web.server_address[1]}"
  monkeypatch.setattr(constants, "ENDPOINT", address)
  monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
  monkeypatch.setenv("HF_TOKEN", "hf_test")
  yield web
  web.shutdown()
  web.server_close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_folder_arrives_whole(hub, weights, tmp_path, capsys):
  """By the real huggingface_hub, up to the Hub's own door."""
  folder = tmp_path / "hub"
  assert _write(weights, folder, "--push=me/net") == 0
  assert capsys.readouterr().out.endswith("/me/net/commit/1\n")
  assert {token for _, token, _ in hub.asked} <= {"Bearer hf_test", None}
  made = json.loads(hub.asked[0][2])
  assert (made["organization"], made["name"]) == ("me", "net")
  assert made.get("visibility", made.get("private")) in ("private", True)
  (lines,) = (b.splitlines() for path, _, b in hub.asked if "/commit/" in path)
  sent = {}
  for line in map(json.loads, lines):
    if line["key"] == "file":
      content = base64.b64decode(line["value"]["content"])
      sent[line["value"]["path"]] = content
  files = [path for path in folder.rglob("*") if path.is_file()]
  assert len(files) > 4
  assert sent == {
    path.relative_to(folder).as_posix(): path.read_bytes() for path in files
  }


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_push_that_fails_is_one_line_and_keeps_the_folder(
  hub, weights, tmp_path, capsys, monkeypatch
):
  hub.status = 403
  assert _write(weights, tmp_path / "refused", "--push=me/net") == 1
  error = capsys.readouterr().err
  assert error.startswith("weights: --push=me/net: ") and error.count("\n") == 1
  assert "403 Forbidden" in error and "reached" not in error
  # Nobody listens: as without a network.
  monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
  assert _write(weights, tmp_path / "offline", "--push=me/net") == 1
  error = capsys.readouterr().err
  assert error.startswith("weights: --push=me/net: ") and error.count("\n") == 1
  assert "http://127.0.0.1:9 can't be reached" in error
  for name in ("refused", "offline"):
    assert (tmp_path / name / "config.json").is_file()


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--to=hub", "--license=My own"], "must be like apache-2.0"),
    (["--to=hub", "--float16"], "is for files"),
    (["--to=timm", "--push=a/b"], "need --to=hub"),
  ],
)
def test_what_makes_no_sense_is_refused(
  weights, tmp_path, capsys, flags, message
):
  assert command.main([str(weights), str(tmp_path / "out"), *flags]) == 1
  assert message in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_nets_that_the_others_lack_are_refused(tmp_path, capsys):
  path = tmp_path / "v3.safetensors"
  save_weights(create_model("mobilevitv3_xxs", num_classes=3), path)
  assert _write(path, tmp_path / "hub") == 1
  assert "timm and transformers have no mobilevitv3" in capsys.readouterr().err
