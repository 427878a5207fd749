"""A batch norm of generators with a gain and a bias that a caption decides."""

from __future__ import annotations

from torch import Tensor, nn

from baselines.nets.slow_norm import SlowBatchNorm


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
