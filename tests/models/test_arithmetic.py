"""Latent arithmetic: concepts that pixels measure, and a decoder whose latent is the concept."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from baselines.contract import Noise
from baselines.nets.arithmetic import CHECKED, SHOWN, arithmetic, ink, lean

LEVELS = 256


def slanted(slope: float, size: int = 24) -> Tensor:
    """A stroke of Gaussian profile that moves right by `slope` columns for each row upwards."""
    rows = torch.arange(size, dtype=torch.float64).view(-1, 1)
    columns = torch.arange(size, dtype=torch.float64).view(1, -1)
    middle = (size - 1) / 2
    away = columns - middle - slope * (middle - rows)
    tall = torch.exp(-0.5 * ((rows - middle) / 3) ** 2)
    return (tall * torch.exp(-0.5 * away**2))[None, None]


@pytest.mark.parametrize("slope", [-0.8, 0.0, 0.5])
def test_lean_is_the_slope_of_a_stroke_wherever_it_stands_and_however_bright(slope: float) -> None:
    assert float(lean(slanted(slope))) == pytest.approx(slope, abs=0.02)
    moved = torch.roll(0.3 * slanted(slope), (1, -1), dims=(2, 3))
    assert float(lean(moved)) == pytest.approx(slope, abs=0.03)


def test_a_black_image_leans_nowhere_and_has_no_ink() -> None:
    black = torch.zeros(2, 3, 5, 5, dtype=torch.float64)
    assert lean(black).tolist() == ink(black).tolist() == [0, 0]


def bright(z: Tensor) -> Tensor:
    """Images whose brightness is the first number of their latent, and nothing else matters."""
    level = (255 * torch.sigmoid(z[:, 0])).round().to(torch.uint8)
    return level.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


def test_the_difference_of_means_moves_what_the_latent_means() -> None:
    strip = arithmetic(6, LEVELS, bright, Noise(2))
    assert strip.rows == ("as drawn", "less ink", "more ink", "less lean to the right", "more lean to the right")
    plain, less, more = (strip.images[i].float().mean((1, 2, 3)) for i in range(3))
    assert bool((less < plain).all())
    assert bool((plain < more).all())
    found = re.search(r"ink: mean ([\d.]+), ([\d.]+), ([\d.]+) .*?; (\d+) % rise", strip.caption)
    assert found is not None
    assert int(found[4]) == 100
    fresh = Noise(2).normal("arithmetic", CHECKED, (6,))
    assert float(found[2]) == pytest.approx(float(ink(bright(fresh).double() / 255).mean()), rel=0.01)
    assert torch.equal(strip.images[0], bright(fresh[:SHOWN]))


def test_a_decoder_that_does_not_hear_its_latent_raises_nothing() -> None:
    def deaf(z: Tensor) -> Tensor:
        return torch.full((len(z), 1, 4, 4), 7, dtype=torch.uint8)

    strip = arithmetic(6, LEVELS, deaf, Noise(2))
    assert strip.caption.count("; 0 % rise") == 2
    assert math.prod(strip.images.shape) == 5 * SHOWN * 16
