"""Measures the input pipeline: `python -m mobilevit_jax.benchmark input`."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The command's flags."""
  del parser


def main(args: argparse.Namespace) -> int:
  """Measures and prints; returns the exit code."""
  del args
  return 0
