"""A sharded checkpoint for the tests that stream."""

import pytest
from helpers import small_llama


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint and what it was saved from."""
    model = small_llama()
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    return tmp_path / "model"
