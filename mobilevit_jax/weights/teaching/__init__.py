"""Small weights that come with the package, to show something learned.

`teaching:NAME` is a source of weights like a file, and needs no network. They
are for pictures and first steps, not for use: each learnt a small set, in
minutes. They are stored as float16, and used as float32.
"""

import dataclasses
import pathlib
from typing import Any

PREFIX = "teaching:"


@dataclasses.dataclass(frozen=True)
class Teaching:
  """One row of `TEACHING`.

  Attributes:
    about: the net, and what it learnt.
    data: where the images are from, and their licence.
    licence: of the weights.
    commands: that made the file, in a checkout.
    result: of the run, on images that it was not trained on.
    crop: of images, as the run was evaluated: arguments of `presets.Crop`.
  """

  about: str
  data: str
  licence: str
  commands: tuple[str, ...]
  result: str
  crop: dict[str, Any]


# By the name of the file beside this one, NAME.safetensors.
TEACHING: dict[str, Teaching] = {
  "digits": Teaching(
    about="MobileViT-XXS, the ten handwritten digits at 32 px",
    data="scikit-learn's load_digits: E. Alpaydin and C. Kaynak, Optical "
    "Recognition of Handwritten Digits, UCI, CC BY 4.0",
    licence="Apache-2.0",
    commands=(
      "mobilevit train --config=digits --workdir=runs/digits",
      "mobilevit weights runs/digits "
      "mobilevit_jax/weights/teaching/digits.safetensors --to=jax --float16 "
      "--which=best",
    ),
    result="top-1 99.4 % of the 360 held-out images",
    crop={"preset": "cvnets", "size": 32},
  ),
  "bccd": Teaching(
    about="MobileViT-XXS with SSDLite, three kinds of blood cells at 320 px",
    data="BCCD_Dataset by shenggan, cosmicad and akshaylamba, MIT; 205 "
    "images of its list train, halved in size",
    licence="Apache-2.0",
    commands=(
      "mobilevit train --config=detect:xxs,folder,scratch --workdir=runs/bccd "
      "--config.data.dir=bccd --config.transform.photometric=none "
      "--config.eval.every_epochs=10",
      "mobilevit weights runs/bccd "
      "mobilevit_jax/weights/teaching/bccd.safetensors --to=jax --float16 "
      "--which=ema",
    ),
    result="mAP@0.5 84.8 %, mAP 49.9 % on 87 held-out images",
    crop={"preset": "cvnets", "size": 320},
  ),
  "nuclei": Teaching(
    about="MobileViT-XXS with DeepLabv3 at stride 8, cell nuclei at 384 px",
    data="2018 Data Science Bowl, stage 1, with the masks that lopuhin "
    "mended, CC0; 320 of its images, of at most 256 px",
    licence="Apache-2.0",
    commands=(
      "mobilevit train --config=segment:xxs,folder,scratch,160 "
      "--workdir=runs/nuclei --config.data.dir=nuclei "
      "--config.model.output_stride=8 --config.model.aspp_width=128 "
      "--config.task.protocol=slide --config.task.window=160 "
      "--config.eval.size=384 --config.transform.short_side='(1.5, 2.75)' "
      "--config.transform.rotation=180.0 --config.transform.blur=0.3 "
      "--config.eval.batch=8 --config.eval.every_epochs=6",
      "mobilevit weights runs/nuclei "
      "mobilevit_jax/weights/teaching/nuclei.safetensors --to=jax --float16 "
      "--which=ema",
    ),
    result="IoU of the nuclei 78.5 % on 80 held-out images, by windows of 160",
    crop={"preset": "cvnets", "size": 384},
  ),
}


def find(name: str) -> tuple[pathlib.Path, Teaching]:
  """The file of `teaching:NAME`, and what is known of it.

  Raises:
    ValueError: if there is none, naming those there are.
  """
  short = name.removeprefix(PREFIX)
  if short not in TEACHING:
    known = ", ".join(PREFIX + other for other in TEACHING)
    raise ValueError(f"{name}: no such teaching weights, only {known}")
  path = pathlib.Path(__file__).with_name(f"{short}.safetensors")
  return path, TEACHING[short]
