"""The invertible layers that Glow adds: actnorm, 1x1 convolution, split with a learned prior.

Kingma and Dhariwal 2018 (arXiv:1807.03039), sec. 3.1-3.3 and Table 1; the prior of what is split off is that of the
paper's code, with z2 ~ N(mean(z1), std(z1)).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.nets.couplings import FactorOut, Flow


class ActNorm(Flow):
    """y = s x + b with one s and one b for each channel of (B, C, H, W) (sec. 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def _log_det(self, x: Tensor) -> Tensor:
        return (x.shape[2] * x.shape[3] * self.log_scale.sum()).expand(len(x))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale, then shift."""
        return x * self.log_scale.exp() + self.bias, self._log_det(x)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Shift back, then scale back."""
        return (z - self.bias) * (-self.log_scale).exp(), -self._log_det(z)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Mean 0 and standard deviation 1 of each channel over the batch; a constant channel keeps its scale."""
        std, mean = torch.std_mean(x, (0, 2, 3), correction=0, keepdim=True)
        scale = torch.where(std > 1e-6, 1 / std, 1.0)[0]
        self.log_scale.copy_(scale.log())
        self.bias.copy_(-mean[0] * scale)
        return self.encode(x)[0]


class InvertibleConv(Flow):
    """A 1x1 convolution by W = P L (U + diag(s)), a random rotation at first (eq. 10); log|det| = H W sum log|s|."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        """P and the signs of s are kept; L (ones on its diagonal), U (zeros on its) and log|s| are learned."""
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        s = upper.diagonal()
        self.register_buffer("permutation", permutation.float())
        self.register_buffer("sign", s.sign().float())
        self.lower = nn.Parameter(lower.tril(-1).float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.log_scale = nn.Parameter(s.abs().log().float())

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.diag(torch.ones_like(self.sign))
        return lower, self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())

    def _log_det(self, x: Tensor) -> Tensor:
        return (x.shape[2] * x.shape[3] * self.log_scale.sum()).expand(len(x))

    def weight(self) -> Tensor:
        """W, (C, C)."""
        lower, upper = self._factors()
        return self.permutation @ (lower @ upper)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """W x at every place."""
        return F.conv2d(x, self.weight()[:, :, None, None]), self._log_det(x)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """W^-1 z, by two triangular systems."""
        lower, upper = self._factors()
        inner = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(upper, inner, upper=True)
        return F.conv2d(z, inverse[:, :, None, None]), -self._log_det(z)


class SplitPrior(FactorOut):
    """Factors the second half of the channels out as noise by a Gaussian prior that the first half determines.

    What is split off is (out - mean) / std of its prior, standard normal where the prior is right; with mean 0 and std
    1, which is where training starts, it is `FactorOut`. log std = 2 tanh(raw / 2), so that it stays finite.
    """

    def __init__(self, rest: Flow, prior: nn.Module, channels: int, height: int, width: int) -> None:
        """The prior maps (B, C/2, H, W) to mean and raw, (B, C, H, W)."""
        super().__init__(rest, channels, height, width)
        self.prior = prior

    def _prior(self, onward: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.prior(onward).chunk(2, 1)
        return mean, 2 * torch.tanh(raw / 2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise what is split off, given what goes on."""
        onward, out = x.chunk(2, 1)
        mean, log_std = self._prior(onward)
        z, log_det = super().encode(torch.cat([onward, (out - mean) * (-log_std).exp()], 1))
        return z, log_det - log_std.flatten(1).sum(1)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Draw what was split off from its prior."""
        x, log_det = super().decode(z)
        onward, noise = x.chunk(2, 1)
        mean, log_std = self._prior(onward)
        return torch.cat([onward, mean + noise * log_std.exp()], 1), log_det + log_std.flatten(1).sum(1)
