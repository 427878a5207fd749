"""Changed colours in a judge's training: shapes stay, colours do not, and colour heads learn nothing of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bench.metrics.classifier import SPECS
from bench.metrics.train_classifier import _loss, recoloured

SPEC = SPECS["digits-captioned-cnn"]


def test_each_channel_is_one_of_the_images_own_inverted_or_not() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 3, 4, 4, generator=generator)
    found = recoloured(x, generator)
    either = torch.stack([x, 1 - x], 1).flatten(1, 2)  # (N, 6, 4, 4): which channel, and whether inverted
    distance = (found[:, :, None] - either[:, None]).abs().amax((3, 4))
    nearest, which = distance.min(2)
    assert float(nearest.max()) < 1e-6
    assert all(sorted(row) == [0, 1, 2] for row in (which % 3).tolist()), "a permutation"
    counts = torch.bincount((which % 3 * 2 + which // 3).flatten(), minlength=6)
    assert int(counts.min()) > 100, "every channel at every place, both ways"


def test_what_is_blended_of_two_colours_stays_blended_of_two_colours() -> None:
    generator = torch.Generator().manual_seed(1)
    share = torch.rand(5, 1, 6, 6, generator=generator)
    ink, ground = torch.rand(2, 5, 3, 1, 1, generator=generator)
    x = recoloured(ground + share * (ink - ground), generator)
    flat = (x - x[..., :1, :1]).flatten(2)
    assert torch.linalg.matrix_rank(flat, atol=1e-4).max() == 1


def test_the_first_head_learns_of_all_images_and_the_others_of_those_whose_colours_are_their_own() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(8, 22, generator=generator, requires_grad=True)
    targets = torch.stack([torch.randint(k, (8,), generator=generator) for k in (10, 6, 6)], 1)
    other = torch.arange(8) < 3
    total = _loss(logits, targets, SPEC, other)
    digit = F.cross_entropy(logits[:, :10], targets[:, 0])
    ink = F.cross_entropy(logits[3:, 10:16], targets[3:, 1])
    ground = F.cross_entropy(logits[3:, 16:], targets[3:, 2])
    assert float(total) == pytest.approx(float(digit + ink + ground), rel=1e-6)
    (gradient,) = torch.autograd.grad(total, logits)
    assert float(gradient[:3, :10].abs().min()) > 0
    assert float(gradient[:3, 10:].abs().max()) == 0
