"""Proves that a refactoring changes no number: old code against new.

    python tests/record.py BASE

trains two short runs with the code of the git ref BASE, in a worktree of its
own, and with the code of this checkout, both from one file of weights, and
compares all that they leave. It prints a table, and exits with 1 where a
quantity differs by more than it may.

    python tests/record.py --write

writes the first losses of this checkout to `record.json`, which
`test_record.py` holds later code to. That is right only after a change that
was meant to alter training.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np
from safetensors import numpy as safetensors

# Run as a script, Python looks for modules in tests/ rather than above it.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tests import runs

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE = pathlib.Path(__file__).with_name("record.json")
STEPS = 40  # into the second epoch, where the images come in another order
FIRST_STEPS = 5  # of FILE: few, because other processors round differently

# Batches of 72 images of 32 px and of 18 images of 64 px.
_SHARED = {
  "model.dtype": "float32",
  "plan.sizes": (32, 64),
  "plan.base_batch": 72,
  "optim.warmup_steps": 10,  # so that the cosine is seen too
  "optim.accum_steps": 1,
  "eval.every_epochs": 1,
  "log_every_steps": 1,
}
_MIXED = {
  "data.mixup": 0.2,
  "optim.class_weights": "balanced",
  "data.flip": 0.5,
  "data.randaugment_ops": 2,
  "data.color_jitter": 0.4,
  "data.erase": 0.25,
}
RUNS = {"mixed": {**_SHARED, **_MIXED}, "plain": _SHARED}
# Where these fields went when classification became a task.
_RENAMED = {
  name: name.replace("data.", "transform.").replace("optim.", "task.")
  for name in _MIXED
} | {"data.mixup": "task.mixup"}
# Sums whose order a refactoring may change, and by how much: some roundings.
_REORDERED = {"grad_norm", "ema_loss", "raw_loss"}
_BOUND = 2e-7
_TIMED = {"mfu"}  # besides those of `runs`

_MAKE_WEIGHTS = """
import sys
from mobilevit_jax import create_model
from mobilevit_jax.weights import save_weights
model = create_model("mobilevit_xxs", num_classes=10, seed=0)
save_weights(model, sys.argv[1], to="cvnets")
"""

# What a run leaves: quantity -> step or array's name -> value.
Quantities = dict[str, dict[object, np.ndarray]]


class RecordError(Exception):
  """No comparison was made; the message says why."""


def arguments(
  run: str, workdir: pathlib.Path, steps: int, tree: pathlib.Path = ROOT
) -> list[str]:
  """Flags of `mobilevit_jax.main` for one of `RUNS`, as `tree` names them."""
  renamed = _RENAMED if (tree / "mobilevit_jax" / "tasks").is_dir() else {}
  fields = {**RUNS[run], "plan.num_steps": steps}
  flags = [f"--config.{renamed.get(k, k)}={v}" for k, v in fields.items()]
  return ["--config=configs/digits.py", f"--workdir={workdir}", *flags]


def _python(tree: pathlib.Path, *args: str | pathlib.Path) -> None:
  """Runs this Python on the code of `tree`, on one CPU device."""
  fixed = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # The tests' own cache: equal programs of both trees are compiled once.
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
  }
  done = subprocess.run(
    [sys.executable, *args],
    cwd=tree,
    env={**os.environ, **fixed},
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  if done.returncode:
    command = " ".join(map(str, args))
    last = "\n".join(done.stdout.splitlines()[-20:])
    raise RecordError(f"python {command} in {tree} failed:\n{last}")


def _git(*args: str | pathlib.Path) -> str:
  command = ["git", "-C", str(ROOT), *args]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise RecordError(done.stderr.strip().replace("\n", " "))
  return done.stdout.strip()


@contextlib.contextmanager
def _worktree(ref: str, folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """The code of a git ref in `folder`, for as long as the context lasts."""
  try:
    commit = _git("rev-parse", "--verify", f"{ref}^{{commit}}")
  except RecordError as error:
    raise RecordError(f"BASE={ref!r} is not a commit of {ROOT}") from error
  try:
    _git("worktree", "add", "--detach", folder, commit)
    yield folder
  finally:
    # Where it could not be added, that error is the one to see.
    with contextlib.suppress(RecordError):
      _git("worktree", "remove", "--force", folder)


def _train(
  run: str, workdir: pathlib.Path, tree: pathlib.Path, weights: pathlib.Path
) -> Quantities:
  """Metrics by step, and the final arrays by ml-cvnets' names."""
  print(f"{workdir.name}: {STEPS} steps by {tree}", flush=True)
  args = arguments(run, workdir, STEPS, tree)
  start = f"--config.weights.source={weights}"
  _python(tree, "-m", "mobilevit_jax.main", *args, start)
  result: Quantities = {}
  for record in runs.records(workdir):
    kind, step = record.pop("kind"), record.pop("step")
    for name in record.keys() - _TIMED:
      # A null, which stands for what is not finite, becomes NaN.
      value = np.array(record[name], np.float64)
      result.setdefault(f"{kind} {name}", {})[step] = value
  is_new = (tree / "mobilevit_jax" / "weights" / "__main__.py").exists()
  module = f"mobilevit_jax.{'weights' if is_new else 'convert'}"
  for which in ("ema", "raw"):
    out = workdir / f"{which}.safetensors"
    options = ("--to=cvnets", f"--which={which}")
    _python(tree, "-m", module, workdir, out, *options)
    result[f"{which} arrays"] = dict(safetensors.load_file(out))
  return result


class Row(NamedTuple):
  """One quantity, compared over all its steps or arrays."""

  quantity: str
  values: int
  equal: bool  # bit for bit
  difference: float  # the largest relative one
  bound: float
  missing: list[object]  # steps or arrays that one side lacks

  @property
  def ok(self) -> bool:
    """Whether nothing is missing or differs by more than it may."""
    close = self.bound > 0 and self.difference <= self.bound
    return (self.equal or close) and not self.missing

  def __str__(self) -> str:
    verdict = "ok" if self.ok else "FAILED"
    if self.missing:
      verdict += f": {len(self.missing)} missing, such as {self.missing[0]}"
    equal = "yes" if self.equal else "no"
    numbers = f"{equal:>7}{self.difference:>12.1e}{self.bound:>9.0e}"
    return f"{self.quantity:<22}{self.values:>8}{numbers}  {verdict}"


def compare(old: Quantities, new: Quantities) -> list[Row]:
  """A row for each quantity of `old`; `new` may have more of them."""
  rows = []
  for quantity, before in sorted(old.items()):
    after = new.get(quantity, {})
    both = [(a, after[key]) for key, a in before.items() if key in after]
    differences = [_difference(a, b) for a, b in both if _bits(a) != _bits(b)]
    row = Row(
      quantity,
      values=sum(a.size for a, _ in both),
      equal=not differences,
      difference=max(differences, default=0.0),
      bound=_BOUND if quantity.split()[-1] in _REORDERED else 0.0,
      missing=sorted(before.keys() ^ after.keys(), key=str),
    )
    rows.append(row)
  return rows


def _bits(array: np.ndarray) -> tuple[object, ...]:
  return array.dtype, array.shape, array.tobytes()


def _difference(a: np.ndarray, b: np.ndarray) -> float:
  """The largest relative one; infinite where the two can't be compared."""
  if a.shape != b.shape:
    return float("inf")
  a, b = a.astype(np.float64), b.astype(np.float64)
  scale = np.maximum(np.abs(a), np.abs(b))
  relative = np.abs(a - b) / np.where(scale == 0, 1, scale)
  return float(np.nan_to_num(relative, nan=np.inf).max())


def _prove(base: str, folder: pathlib.Path) -> bool:
  """Runs both trees and prints the table; whether every row is ok."""
  weights = folder / "weights.safetensors"
  with _worktree(base, folder / "base") as old_tree:
    _python(old_tree, "-c", _MAKE_WEIGHTS, weights)
    old, new = (
      {
        run: _train(run, folder / f"{side}-{run}", tree, weights)
        for run in RUNS
      }
      for side, tree in (("old", old_tree), ("new", ROOT))
    )
  ok = True
  for run in RUNS:
    heads = ("values", "equal", "difference", "allowed")
    print("\n{:<22}{:>8}{:>7}{:>12}{:>9}".format(f"run {run}", *heads))
    for row in compare(old[run], new[run]):
      print(row)
      ok &= row.ok
  return ok


def _write(folder: pathlib.Path) -> None:
  losses = {}
  for run in RUNS:
    print(f"{run}: {FIRST_STEPS} steps by {ROOT}", flush=True)
    args = arguments(run, folder / run, FIRST_STEPS)
    _python(ROOT, "-m", "mobilevit_jax.main", *args)
    losses[run] = runs.losses(folder / run).tolist()
  FILE.write_text(json.dumps(losses, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit code is 1 where anything differs or fails."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("base", nargs="?", metavar="BASE", help="git ref, old code")
  what.add_argument("--write", action="store_true", help=f"write {FILE.name}")
  args = parser.parse_args(argv)
  try:
    with tempfile.TemporaryDirectory(prefix="record-") as name:
      folder = pathlib.Path(name).resolve()
      if args.write:
        _write(folder)
        return 0
      return 0 if _prove(args.base, folder) else 1
  except (RecordError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
  # As an exception, so that the worktree is removed on this way out too.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  sys.exit(main())
