"""What a caption says, as a vector: a convolution over its words, a recurrent layer, and their mean.

The word-level CNN-RNN of Reed et al. 2016 (arXiv:1605.05395, sec. 4.1), made small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CaptionEncoder(nn.Module):
    """phi(t): tokens int64 (B, L), 0 behind a caption's end, to (B, size), each of mean 0 and variance 1."""

    def __init__(self, words: int, size: int, hidden: int) -> None:
        """words: of the vocabulary, word 0 among them. size: of phi. hidden: of a word's vector and of the GRU."""
        super().__init__()
        self.embedding = nn.Embedding(words, hidden, padding_idx=0)
        self.convolution = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.recurrent = nn.GRU(hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, size)
        self.norm = nn.LayerNorm(size, elementwise_affine=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean of the recurrent layer's states at the words; what stands behind the end changes nothing."""
        there = (tokens > 0).unsqueeze(2)
        words = self.embedding(tokens)
        local = F.relu(self.convolution(words.transpose(1, 2))).transpose(1, 2)
        states, _ = self.recurrent(local)
        mean = torch.where(there, states, 0).sum(1) / there.sum(1).clamp(min=1)
        encoded: Tensor = self.norm(self.out(mean))
        return encoded
