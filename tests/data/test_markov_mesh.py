"""The generated source: its truth is a probability, and its sampler follows it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.data import markov_mesh
from baselines.data.markov_mesh import TABLE, MarkovMesh
from baselines.errors import UserError


def all_images(height: int, width: int) -> Tensor:
    bits = itertools.product((0, 1), repeat=height * width)
    return torch.tensor(list(bits), dtype=torch.uint8).view(-1, 1, height, width)


def brute_force_nats(image: Tensor) -> float:
    """-log P pixel by pixel, written from the definition."""
    x = image[0].tolist()
    total = 0.0
    for i, row in enumerate(x):
        for j, pixel in enumerate(row):
            left = row[j - 1] if j > 0 else 0
            up = x[i - 1][j] if i > 0 else 0
            corner = x[i - 1][j - 1] if i > 0 and j > 0 else 0
            p = TABLE[4 * left + 2 * up + corner]
            total -= math.log(p if pixel else 1 - p)
    return total


def exact_entropy_nats(height: int, width: int) -> float:
    """E[-log P(x)] by passing over all states of the last width + 2 places, each row led by its border."""
    states = {(0,) * (width + 2): 1.0}
    entropy = 0.0
    for place in range(height * (width + 1)):
        after: dict[tuple[int, ...], float] = {}
        for state, weight in states.items():
            p = 0.0 if place % (width + 1) == 0 else TABLE[4 * state[-1] + 2 * state[1] + state[0]]
            for bit, probability in ((1, p), (0, 1 - p)):
                if probability > 0:
                    entropy -= weight * probability * math.log(probability)
                    key = (*state[1:], bit)
                    after[key] = after.get(key, 0.0) + weight * probability
        states = after
    return entropy


@pytest.mark.parametrize(("height", "width"), [(3, 3), (2, 4), (4, 1)])
def test_probabilities_sum_to_one_over_all_images(height: int, width: int) -> None:
    nats = MarkovMesh(height, width).nats(all_images(height, width))
    assert float(torch.exp(-nats).sum()) == pytest.approx(1, abs=1e-12)


def test_truth_is_the_brute_force_sum() -> None:
    images = markov_mesh.load().test.images[:100]
    expected = torch.tensor([brute_force_nats(image) for image in images], dtype=torch.float64)
    torch.testing.assert_close(MarkovMesh(8, 8).nats(images), expected)


def test_samples_follow_the_density_on_all_3x3_images() -> None:
    mesh, n = MarkovMesh(3, 3), 100_000
    p = torch.exp(-mesh.nats(all_images(3, 3)))
    codes = (mesh.sample(n, seed=1).flatten(1).long() * 2 ** torch.arange(8, -1, -1)).sum(1)
    frequency = torch.bincount(codes, minlength=512) / n
    variation = 0.5 * float((frequency - p).abs().sum())
    floor = 0.5 * float((2 * p * (1 - p) / (math.pi * n)).sqrt().sum())  # its mean under multinomial noise
    assert variation < 1.25 * floor


def test_mean_truth_of_samples_is_the_exact_entropy() -> None:
    small = MarkovMesh(3, 3).nats(all_images(3, 3))
    assert exact_entropy_nats(3, 3) == pytest.approx(float((torch.exp(-small) * small).sum()), rel=1e-12)
    mesh = MarkovMesh(8, 8)
    nats = mesh.nats(mesh.sample(20_000, seed=2))
    assert abs(float(nats.mean()) - exact_entropy_nats(8, 8)) < 4 * float(nats.std()) / math.sqrt(20_000)


def test_the_source_is_far_from_independent_pixels() -> None:
    data = markov_mesh.load()
    p = data.train.images.double().mean(0)
    independent = -torch.where(data.test.images == 1, p.log(), torch.log1p(-p)).flatten(1).sum(1).mean()
    assert data.truth is not None
    truth = data.truth(data.test.images).mean()
    assert (independent - truth) / (64 * math.log(2)) > 0.4  # bits/dim that only structure can win


def test_splits_have_their_sizes_and_a_reload_gives_the_same_images() -> None:
    data = markov_mesh.load()
    assert [len(split) for split in (data.train, data.val, data.test)] == [4000, 500, 2000]
    assert tuple(data.shape) == (1, 8, 8, 2)
    assert data.fingerprint() == markov_mesh.load().fingerprint()


def test_the_stream_is_raw_pcg64() -> None:
    """The documented recipe for one pixel per image, in Python integers."""
    words = np.random.PCG64(5).random_raw(300).tolist()
    expected = [int((word >> 11) / 2**53 < TABLE[0]) for word in words]
    assert MarkovMesh(1, 1).sample(300, seed=5).flatten().tolist() == expected


def test_wrong_shapes_and_tables_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images \(B, 1, 8, 8\), got \(2, 1, 3, 3\)"):
        MarkovMesh(8, 8).nats(torch.zeros(2, 1, 3, 3, dtype=torch.uint8))
    with pytest.raises(UserError, match="table of 8 probabilities"):
        MarkovMesh(8, 8, (0.5, 1.0))
