"""Input: where images come from, in which order, and how they become batches.

Four modules to use, none of which imports JAX: `plan` (which examples make up
which step), `sources` (random access to images and labels), `augment` (image
operations) and `pipeline` (the three put together as an iterator of batches).
The others are parts of theirs, but for `presets` (evaluation crops by name).
"""
