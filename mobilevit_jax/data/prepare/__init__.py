"""TFDS sets as ArrayRecord files: downloaded or converted."""
