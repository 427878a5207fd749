"""Batch norms of generators: for weights that are averaged, and with a gain and a bias that a caption decides."""

from __future__ import annotations

from torch import Tensor, nn


class SlowBatchNorm(nn.BatchNorm2d):
    """Batch norm whose running statistics look back as far as the moving average of the weights does.

    The statistics that fit averaged weights are averages too; those of torch's usual momentum of 0.1 belong to the
    last weights. It starts as fast as that average: with weight 9 / (9 + batches seen), down to `slowest`.
    """

    def __init__(self, channels: int, slowest: float) -> None:
        super().__init__(channels)
        self.slowest = slowest

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        if self.training:
            assert self.num_batches_tracked is not None
            self.momentum = max(self.slowest, 9 / (9 + int(self.num_batches_tracked)))
        return super().forward(x)


class ToldNorm(nn.Module):
    """Batch norm whose gain and bias are the text's (de Vries et al. 2017, arXiv:1707.00683)."""

    def __init__(self, channels: int, text: int, slowest: float) -> None:
        super().__init__()
        self.norm = SlowBatchNorm(channels, slowest)
        self.change = nn.Linear(text, 2 * channels)
        nn.init.normal_(self.change.weight, 0.0, 0.02)
        nn.init.zeros_(self.change.bias)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """(B, channels, H, W) and the compressed text (B, text); at first nearly plain batch norm."""
        gain, bias = self.change(text)[:, :, None, None].chunk(2, 1)
        changed: Tensor = self.norm(x) * (1 + gain) + bias
        return changed
