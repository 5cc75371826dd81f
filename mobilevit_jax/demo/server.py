"""Serves a folder to the browser on this machine."""

import functools
import http.server
import pathlib

_KINDS = {
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
  # Browsers compile WebAssembly as it comes, and run modules at all, only by
  # these types; a system's own table may have others.
  extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | _KINDS

  def end_headers(self) -> None:
    """Adds a header: the next folder is at the same address."""
    self.send_header("Cache-Control", "no-cache")
    super().end_headers()

  def log_message(self, unused_format: str, *args: object) -> None:
    """Says nothing of requests."""


def make(
  folder: pathlib.Path, host: str, port: int
) -> http.server.ThreadingHTTPServer:
  """A server of a folder, to be started by `serve_forever`.

  Args:
    folder: to serve.
    host: address to listen at.
    port: number, or 0 for one that is free: see its `server_address`.

  Raises:
    ValueError: if the port is taken, or the address is none of this machine.
  """
  handler = functools.partial(_Handler, directory=str(folder))
  try:
    return http.server.ThreadingHTTPServer((host, port), handler)
  except OSError as error:
    raise ValueError(
      f"can't serve at {host}:{port}: {error.strerror}; another --port may be "
      "free, and --port=0 takes one that is"
    ) from error
