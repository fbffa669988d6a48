"""Checkpoints written from opened models, pruned or unpacked, as safetensors.

- `checkpoint_layout`: files, headers, and the place of each tensor.
- `checkpoint_writer`: values, files beside them, and a count of the written zeros.
"""
