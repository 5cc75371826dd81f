"""TFDS sets as ArrayRecord files: downloaded, converted and verified."""
