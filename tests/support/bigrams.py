"""Causal models whose predictions are a table: the logits after each token."""

from types import SimpleNamespace

import torch
import transformers
from torch import nn


class Bigram(nn.Module):
    """Logits of the next token, looked up by the last one and passed through a matrix."""

    def __init__(self, logits, window=None):
        super().__init__()
        logits = torch.as_tensor(logits, dtype=torch.float32)
        self.config = transformers.PretrainedConfig(max_position_embeddings=window)
        self.table = nn.Embedding.from_pretrained(logits, freeze=False)
        self.fc1 = nn.Linear(logits.shape[1], logits.shape[1], bias=False)
        nn.init.eye_(self.fc1.weight)

    def get_input_embeddings(self):
        return self.table

    def can_generate(self):
        return True

    def forward(self, input_ids, use_cache=False):  # noqa: ARG002
        return SimpleNamespace(logits=self.fc1(self.table(input_ids)))
