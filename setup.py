"""Which folders are in the wheel; the rest stands in pyproject.toml.

configs/ lies beside the package, where one looks for it, and is a part of it
once installed: `mobilevit train --config=digits` works in any folder.
"""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=["mobilevit_jax", "mobilevit_jax.*"]),
    "mobilevit_jax.configs",
  ],
  package_dir={"mobilevit_jax.configs": "configs"},
)
