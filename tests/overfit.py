"""Whether a detector learns eight images by heart, from random weights.

    python -m tests.overfit COCO_FOLDER [STEPS] [FLAGS]

takes the first eight images of `train`, in the order of their ids, that have
boxes, and trains XXS on them for STEPS steps (600) without augmentation. Then
`--mode=eval` judges them, from the checkpoint, and prints its figures.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

COUNT = 8


def write(folder: pathlib.Path, out: pathlib.Path) -> None:
  """A set of eight images in `out`, whose only split is `eight`."""
  content = json.loads(
    (folder / "annotations/instances_train.json").read_text()
  )
  with_boxes = {row["image_id"] for row in content["annotations"]}
  images = sorted(content["images"], key=lambda row: row["id"])
  images = [row for row in images if row["id"] in with_boxes][:COUNT]
  ids = {row["id"] for row in images}
  content["images"] = images
  content["annotations"] = [
    row for row in content["annotations"] if row["image_id"] in ids
  ]
  (out / "annotations").mkdir()
  (out / "annotations/instances_eight.json").write_text(json.dumps(content))
  (out / "images").mkdir()
  (out / "images/eight").symlink_to((folder / "images/train").resolve())


def main() -> int:
  """Trains and judges; the exit code is that of the run."""
  folder, *more = sys.argv[1:]
  steps = int(more.pop(0)) if more and more[0].isdecimal() else 600
  with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    write(pathlib.Path(folder), root)
    command = [sys.executable, "-m", "mobilevit_jax.main"]
    command += ["--config=configs/detect.py:xxs,folder,scratch"]
    command += [f"--workdir={root / 'run'}"]
    for field, value in {
      "data.dir": root,
      "data.train_split": "eight",
      "data.eval_split": "eight",
      "data.check": False,
      "transform.crop": False,
      "transform.flip": 0.0,
      "transform.photometric": "none",
      "model.dropout": 0.0,
      "optim.weight_decay": 0.0,
      "plan.num_epochs": steps,
      "eval.every_epochs": steps // 2,
      "eval.batch": COUNT,
    }.items():
      command.append(f"--config.{field}={value}")
    command += more
    for mode in ("train", "eval"):
      code = subprocess.run([*command, f"--mode={mode}"]).returncode
      if code:
        return code
  return 0


if __name__ == "__main__":
  sys.exit(main())
