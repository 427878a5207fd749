"""Batch norm for networks whose averaged weights are what is used in the end."""

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
