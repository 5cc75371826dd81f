"""A headless Chromium, driven by its DevTools protocol over two pipes.

The protocol's own transport for programs that start the browser
(`--remote-debugging-pipe`): JSON and a zero byte, on descriptors 3 and 4. So
the tests need the browser and nothing else.
"""

import base64
from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import tempfile
import time

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SECONDS = 120  # for the slowest answer, on a busy machine


def find() -> str | None:
  """The browser's path; None where there is none."""
  return next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
  """One tab.

  Attributes:
    requests: addresses that the page has asked for.
    errors: what was thrown or logged as an error, as text.
  """

  def __init__(self, read: int, write: int):
    self._read, self._write = read, write
    self._buffer, self._count, self._session = b"", 0, None
    self.requests: list[str] = []
    self.errors: list[str] = []
    target = self.call("Target.createTarget", url="about:blank")
    self._session = self.call(
      "Target.attachToTarget", targetId=target["targetId"], flatten=True
    )["sessionId"]
    for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
      self.call(f"{domain}.enable")

  def call(self, method, **params):
    """Calls a method of the protocol and returns its result."""
    self._count += 1
    message = {"id": self._count, "method": method, "params": params}
    if self._session is not None:
      message["sessionId"] = self._session
    os.write(self._write, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._next()
      if answer.get("id") == self._count:
        if "error" in answer:
          raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]
      self._note(answer)

  def _next(self):
    end = time.monotonic() + _SECONDS
    while b"\0" not in self._buffer:
      if not select.select([self._read], [], [], end - time.monotonic())[0]:
        raise TimeoutError(f"no answer within {_SECONDS} s; {self.errors}")
      part = os.read(self._read, 1 << 20)
      if not part:
        raise RuntimeError("the browser has ended")
      self._buffer += part
    message, _, self._buffer = self._buffer.partition(b"\0")
    return json.loads(message)

  def _note(self, event):
    method, params = event.get("method"), event.get("params", {})
    if method == "Network.requestWillBeSent":
      self.requests.append(params["request"]["url"])
    elif method == "Runtime.exceptionThrown":
      self.errors.append(params["exceptionDetails"]["exception"]["description"])
    elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
      entry = params["entry"]
      self.errors.append(f"{entry['text']} {entry.get('url', '')}")
    elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
      texts = [a.get("description", a.get("value")) for a in params["args"]]
      self.errors.append(" ".join(map(str, texts)))

  def open(self, url):
    """Goes to a page, and returns when its scripts are there."""
    self.requests.clear()
    self.errors.clear()
    self.call("Page.navigate", url=url)
    while not self.run(
      "location.href !== 'about:blank' && document.readyState === 'complete'"
    ):
      time.sleep(0.02)

  def run(self, expression):
    """The value of an expression of JavaScript, awaited."""
    result = self.call(
      "Runtime.evaluate",
      expression=expression,
      awaitPromise=True,
      returnByValue=True,
      userGesture=True,
    )
    if "exceptionDetails" in result:
      thrown = result["exceptionDetails"]["exception"]
      raise RuntimeError(thrown.get("description", thrown.get("value")))
    return result["result"].get("value")

  def until(self, condition):
    """Waits until an expression holds."""
    end = time.monotonic() + _SECONDS
    while not self.run(condition):
      if time.monotonic() > end:
        raise TimeoutError(f"{condition} within {_SECONDS} s; {self.errors}")
      time.sleep(0.02)

  def choose(self, selector, path):
    """Chooses a file in an input, as a user would."""
    root = self.call("DOM.getDocument")["root"]["nodeId"]
    node = self.call("DOM.querySelector", nodeId=root, selector=selector)
    self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

  def screenshot(self, path, *, width=1200, height=900, dark=False):
    """Writes a PNG of the window, so large."""
    self.call(
      "Emulation.setDeviceMetricsOverride",
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else ""}
    self.call("Emulation.setEmulatedMedia", features=[scheme])
    time.sleep(0.3)
    shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
    pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def start(path: str, *flags: str) -> Iterator[Browser]:
  """Starts the browser, with an empty profile, and ends it."""
  # Descriptors above those that they become in the browser.
  pipes = [
    fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    for pipe in (os.pipe(), os.pipe())
    for end in pipe
  ]
  theirs, write, read, back = pipes
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    command = [
      path,
      "--headless=new",
      "--remote-debugging-pipe",
      f"--user-data-dir={profile}",
      "--no-first-run",
      "--no-sandbox",  # which root, as in CI's containers, can't have
      "--disable-dev-shm-usage",  # small in containers
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-gpu",
      # A camera that shows a pattern, and no question whether it may.
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
      *flags,
    ]
    quiet = os.open(os.devnull, os.O_WRONLY)
    process = os.posix_spawn(
      path,
      command,
      os.environ,
      file_actions=[
        (os.POSIX_SPAWN_DUP2, theirs, 3),
        (os.POSIX_SPAWN_DUP2, back, 4),
        (os.POSIX_SPAWN_DUP2, quiet, 1),
        (os.POSIX_SPAWN_DUP2, quiet, 2),
      ],
      setpgroup=0,
    )
    for end in (theirs, back, quiet):
      os.close(end)
    try:
      yield Browser(read, write)
    finally:
      os.close(write)  # it ends when nobody is there any more
      os.close(read)
      os.killpg(process, signal.SIGKILL)
      os.waitpid(process, 0)
