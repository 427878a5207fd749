"""Which timesteps a batch is trained at: stratified over the chain, or importance-sampled by their losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.contract import Context

_HISTORY = 10  # latest losses kept of each timestep
_UNIFORM = 0.001  # share of the draws that keep every timestep in reach


def stratified_timesteps(n: int, total: int, context: Context) -> Tensor:
    """n timesteps of 0 .. total - 1, int64, one in each of n equal parts of the chain."""
    return (context.strata(n) * total).long().clamp(max=total - 1)


def draw_timesteps(n: int, total: int, context: Context, history: LossHistory | None) -> tuple[Tensor, Tensor]:
    """n rising timesteps and the weights of their losses in a mean, (n,) each: by the history if there is one."""
    if history is not None:
        return history.draw(n, context)
    return stratified_timesteps(n, total, context), torch.ones(n, device=context.device)


class LossHistory(nn.Module):
    """Draws timesteps in proportion to the root mean square of their latest losses (Nichol and Dhariwal 2021, eq. 18).

    Uniform until each timestep has ten losses. What it remembers are buffers, so that an interrupted training goes on
    as it would have. Departure: a batch's draws are stratified, one in each of n equal parts of the probability.
    """

    losses: Tensor  # (T, 10)
    counts: Tensor  # (T,) losses seen so far

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.zeros(timesteps, _HISTORY))
        self.register_buffer("counts", torch.zeros(timesteps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """Of each timestep, float64 (T,)."""
        total = len(self.counts)
        uniform = torch.full((total,), 1 / total, dtype=torch.float64, device=self.counts.device)
        if bool((self.counts < _HISTORY).any()):
            return uniform
        moments = self.losses.double().square().mean(1).sqrt()
        return (1 - _UNIFORM) * moments / moments.sum() + _UNIFORM * uniform

    def draw(self, n: int, context: Context) -> tuple[Tensor, Tensor]:
        """n rising timesteps, int64 (n,), and the weights 1 / (T p_t) that keep a mean of losses unbiased, (n,)."""
        p = self.probabilities()
        ends = p.cumsum(0)
        t = torch.searchsorted(ends / ends[-1], context.strata(n).double(), right=True).clamp(max=len(p) - 1)
        return t, (1 / (len(p) * p[t])).float()

    @torch.no_grad()
    def note(self, t: Tensor, losses: Tensor) -> None:
        """Remember losses (n,) at rising timesteps t (n,), each in place of the oldest."""
        first = torch.searchsorted(t, t)
        rank = torch.arange(len(t), device=t.device) - first
        times = torch.searchsorted(t, t, right=True) - first
        latest = rank >= times - _HISTORY  # no place is written to twice
        self.losses[t[latest], (self.counts[t] + rank)[latest] % _HISTORY] = losses.detach().float()[latest]
        self.counts.index_add_(0, t, torch.ones_like(t))
