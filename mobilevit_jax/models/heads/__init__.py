"""Heads: what makes outputs of a backbone's features; see `models.net.Net`."""
