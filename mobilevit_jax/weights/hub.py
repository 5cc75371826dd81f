"""A folder for the Hugging Face Hub: timm's files, transformers', a model card.

timm looks for its files at the top of a repository and nowhere else, and
transformers takes a sub-folder, so the latter's are in `transformers/`. Where
timm is installed too, transformers also loads the top, as `TimmWrapper`.
"""

from collections.abc import Mapping, Sequence
import importlib
import pathlib
import re
from typing import Any

import numpy as np

from mobilevit_jax import files
from mobilevit_jax import models
from mobilevit_jax.weights import card
from mobilevit_jax.weights import files as weight_files
from mobilevit_jax.weights import hf_config
from mobilevit_jax.weights import names
from mobilevit_jax.weights.source import FoundWeights

SUBFOLDER = "transformers"


def write(
  weights: Mapping[str, np.ndarray],
  model: models.Net,
  found: FoundWeights,
  path: pathlib.Path,
  *,
  name: str,
  size: int,
  resize: int,
  bicubic: bool,
  licence: str | None = None,
  force: bool = False,
) -> None:
  """Writes the folder, whole or not at all.

  Args:
    weights: our tensors by path.
    model: the net, which may be abstract; a classifier.
    found: where they are from; of a run, the card tells how it went.
    path: the folder.
    name: of the variant.
    size: side of the evaluated crop, in pixels.
    resize: shorter side before it, likewise.
    bicubic: whether images are resized so; else bilinearly.
    licence: identifier for the card, such as `apache-2.0`.
    force: replace what exists.

  Raises:
    ValueError: for a net that timm and transformers don't have, or a licence
      that is no identifier.
  """
  # Only nets that both libraries have can be published for both.
  table = names.table(model)
  named = all(all(row.names(d)) for row in table for d in ("timm", "hf"))
  if models.head_of(model) != "classifier" or not named:
    raise ValueError(
      f"--to=hub: timm and transformers have no {name} with the head "
      f"{models.head_of(model)!r}; --to=jax writes a file of ours"
    )
  if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
    raise ValueError(f"--license={licence} must be like apache-2.0")
  # Both libraries want a name for each class.
  count = model.head.num_classes
  labels = found.labels or tuple(f"class {index}" for index in range(count))
  # Their processors are told how these images were cropped, not Apple's.
  theirs = hf_config.documents(name, model, labels)
  theirs["config.json"]["image_size"] = size
  theirs["preprocessor_config.json"] |= {
    "size": {"shortest_edge": resize},
    "crop_size": {"height": size, "width": size},
    "resample": 3 if bicubic else 2,  # PIL's numbers
  }
  text = card.text(found, name, labels, licence=licence)
  # The whole folder, or nothing: an upload must not find half of one.
  with files.whole(path, force=force) as folder:
    folder.mkdir(parents=True)
    weight_files.write_folder(
      folder,
      # timm's files lie at the top, as its loader has no sub-folders.
      names.to_dialect(weights, table, "timm"),
      {"format": "pt"},
      {"config.json": _timm(name, labels, size, resize, bicubic)},
      force=True,
    )
    weight_files.write_folder(
      folder / SUBFOLDER,
      names.to_dialect(weights, table, "hf"),
      {"format": "pt"},
      theirs,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _timm(
  name: str, labels: Sequence[str], size: int, resize: int, bicubic: bool
) -> dict[str, Any]:
  """Timm's `config.json`."""
  return {
    "architecture": name,
    "num_classes": len(labels),
    "label_names": list(labels),
    "pretrained_cfg": {
      "input_size": [3, size, size],
      "fixed_input_size": False,
      "interpolation": "bicubic" if bicubic else "bilinear",
      # timm rounds size / crop_pct down, which must not lose a pixel.
      "crop_pct": size / resize * (1 - 1e-9),
      "crop_mode": "center",
      # Images in [0, 1] as they are; timm's default would be ImageNet's.
      "mean": [0.0, 0.0, 0.0],
      "std": [1.0, 1.0, 1.0],
      "num_classes": len(labels),
      "first_conv": "stem.conv",
      "classifier": "head.fc",
    },
  }


def _is_unreached(error: BaseException | None) -> bool:
  """Whether the system said that there is no way to a server."""
  while error is not None:
    # An answer of the server's is an OSError to huggingface_hub too.
    if isinstance(error, OSError) and not hasattr(error, "response"):
      return True
    error = error.__cause__ or error.__context__
  return False


def push(folder: pathlib.Path, repo: str) -> str:
  """Uploads the folder, and returns the address of the commit.

  A repository that is not there yet is made, and nobody else sees it until its
  owner says so. Who uploads is known to huggingface_hub (`hf auth login`).

  Raises:
    ValueError: with the reason, in one line.
  """
  if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
    raise ValueError(f"--push={repo} must have the form owner/name")
  huggingface_hub = importlib.import_module("huggingface_hub")
  api = huggingface_hub.HfApi()
  try:
    # Private until the owner decides otherwise.
    api.create_repo(repo, private=True, exist_ok=True)
    made = api.upload_folder(
      repo_id=repo,
      folder_path=str(folder),
      commit_message="Upload by mobilevit_jax",
    )
  # Network, proxy, login and permissions: unrelated error types.
  except Exception as error:
    # The first line: the rest is a request's id and advice on the web.
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if _is_unreached(error):
      first = f"{api.endpoint} can't be reached ({first})"
    raise ValueError(
      f"--push={repo}: {first}; {folder} is written, and `hf upload {repo} "
      f"{folder} --private` sends it later"
    ) from error
  return str(getattr(made, "commit_url", made))
