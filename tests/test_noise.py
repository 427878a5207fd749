"""Noise keyed by (seed, image, purpose): the same image whatever the batch, and truly random."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

from baselines.noise import Noise, derive_seed


def streams(noise: Noise, n: int, steps: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.stack(list(itertools.islice(noise.normals("walk", n, shape, steps), steps)))


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8), (3, 32, 32), (1, 200, 200)])
def test_image_i_is_the_same_in_any_batch(shape: tuple[int, ...]) -> None:
    noise = Noise(4)
    for kind in ("normal", "uniform"):
        whole = getattr(noise, kind)("x", 5, shape)
        parts = [getattr(noise.at(first), kind)("x", n, shape) for first, n in ((0, 2), (2, 3))]
        assert torch.equal(whole, torch.cat(parts))
    whole = streams(noise, 3, 7, shape)
    for i in range(3):
        assert torch.equal(whole[:, i : i + 1], streams(noise.at(i), 1, 7, shape))


def test_steps_beyond_a_block_are_new_numbers() -> None:
    values = streams(Noise(0), 1, 2000, (16,)).flatten()
    assert len(values.unique()) > 0.999 * len(values)
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-3


def test_no_more_is_drawn_ahead_than_will_be_taken() -> None:
    for steps, ahead in ((4, 4), (10_000, 1024)):
        step = next(Noise(0).normals("walk", 3, (16,), steps))
        assert step.untyped_storage().nbytes() == 4 * 3 * 16 * ahead


def test_seeds_purposes_images_and_forks_are_independent() -> None:
    draws = [
        Noise(1).normal("a", 1, (4000,)),
        Noise(2).normal("a", 1, (4000,)),
        Noise(1).normal("b", 1, (4000,)),
        Noise(1).at(1).normal("a", 1, (4000,)),
        Noise(1).fork(0).normal("a", 1, (4000,)),
        Noise(1).fork(1).normal("a", 1, (4000,)),
    ]
    correlation = torch.corrcoef(torch.cat(draws)) - torch.eye(6)
    assert float(correlation.abs().max()) < 5 / 4000**0.5


def test_distributions_are_what_they_say() -> None:
    assert stats.kstest(Noise(3).normal("x", 50, (200,)).flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(Noise(3).uniform("x", 50, (200,)).flatten().numpy(), "uniform").pvalue > 1e-3


def test_seeds_are_derived_from_every_part_unambiguously() -> None:
    seeds = [derive_seed(*parts) for parts in ((1, 2), (2, 1), (12,), ("1", "2", ""), (1, "2x"))]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
