r"""Shows in a browser what a run's net, or an exported file, answers.

    mobilevit demo runs/flowers
    mobilevit demo flowers.tflite --out=public/demo

One page: photographs, the camera or samples go through the file in the browser
itself, and it says how long that takes and whether the answers are Python's.
Without --out it is served on this machine until Ctrl-C; with it, it is a folder
for any web server. The page loads nothing from elsewhere and sends nothing.
"""

import argparse
from collections.abc import Callable, Sequence
import ipaddress
import pathlib
import sys
import tempfile

from mobilevit_jax import files
from mobilevit_jax.demo import server
from mobilevit_jax.run import stop


@stop.in_one_line("demo", "a folder is there whole, or as it was before")
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where there is nothing to show."""
  args = _parser().parse_args(argv)
  # Late, since it needs JAX, and --help does not.
  from mobilevit_jax.demo import folder

  try:
    if not 0 <= args.port < 65536:
      raise ValueError(f"--port={args.port} must be from 0 to 65535")
    if args.out is None:
      _serve(args, folder.write)
    else:
      with files.whole(args.out, force=args.force) as part:
        part.mkdir()
        lines = folder.write(
          args.source,
          pathlib.Path(part),
          images=args.images,
          size=args.size,
          title=args.title,
        )
      print(*lines, f"{args.out}: for any web server", sep="\n")
  except (ValueError, OSError) as error:
    print(f"demo: {error}", file=sys.stderr)
    return 1
  return 0


def _serve(args: argparse.Namespace, write: Callable[..., list[str]]) -> None:
  with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    # The port is taken first, so that a second demo fails at once.
    # Before the export, which takes a while; requests wait for it.
    with server.make(place, args.host, args.port) as web:
      lines = write(
        args.source,
        place,
        images=args.images,
        size=args.size,
        every_engine=True,
        title=args.title,
      )
      host, port = web.server_address[:2]
      print(*lines, sep="\n")
      # Browsers give the camera to secure origins: https, or this machine.
      if not _is_loopback(str(host)):
        print(
          "Everybody who reaches this machine can open the page. Browsers "
          "give it no camera there: they ask for https, or 127.0.0.1."
        )
      print(f"http://{host}:{port}/ is open. Ctrl-C ends it.", flush=True)
      try:
        web.serve_forever()
      except KeyboardInterrupt:
        print()


def _is_loopback(host: str) -> bool:
  return ipaddress.ip_address(host).is_loopback


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="mobilevit demo",
    description="Runs an exported file in a browser, on one page.",
  )
  add = parser.add_argument
  add(
    "source",
    metavar="RUN_OR_FILE",
    help="an exported .onnx or .tflite file, or a run's workdir or other "
    "weights, which become an ONNX file",
  )
  text = "write a folder for any web server, and serve nothing"
  add("--out", type=pathlib.Path, metavar="FOLDER", help=text)
  add("--force", action="store_true", help="replace FOLDER")
  add(
    "--images",
    nargs="+",
    type=pathlib.Path,
    metavar="IMAGE_OR_FOLDER",
    help="the page's samples; by default those that the run was evaluated on, "
    "or else coloured squares",
  )
  add("--size", type=int, help="image side of exported weights, in pixels")
  add("--title", help="of the page")
  add("--port", type=int, default=8000, help="0 for one that is free")
  add(
    "--host",
    default="127.0.0.1",
    help="address to listen at; by default nobody else reaches the page",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
