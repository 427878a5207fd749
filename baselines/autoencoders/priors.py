"""Distributions over codes that can be drawn from, which is all that an adversarial autoencoder asks of its prior.

A 2-D Gaussian, a mixture of 2-D Gaussians and a Swiss roll are those of Makhzani et al. 2015 (arXiv:1511.05644,
sections 2 and 2.3, figures 2 and 4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from baselines.errors import UserError

PriorName = Literal["gaussian", "mixture", "swiss_roll"]
SIDE = 12  # points of a chart in each direction


class Chart(NamedTuple):
    """Places of a space of codes in rows and columns, so that a page can show what lies there."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    points: Tensor  # (rows, columns, latent)
    told: str  # where they lie


class Prior(ABC):
    """A distribution over codes that can be drawn from; nothing else is asked of it, no density either."""

    numbers: int
    """Standard normal numbers that one draw takes."""

    @abstractmethod
    def draw(self, normal: Tensor) -> Tensor:
        """Standard normal numbers (n, numbers) to draws (n, latent)."""

    def chart(self) -> Chart | None:
        """Places that show the whole of it; None if two directions cannot."""
        return None


class Gaussian(Prior):
    """N(0, I) in any number of dimensions."""

    def __init__(self, latent: int) -> None:
        self.numbers = latent

    def draw(self, normal: Tensor) -> Tensor:
        """The numbers themselves."""
        return normal

    def chart(self) -> Chart | None:
        """In two dimensions a grid whose cells all have the same probability, by the inverse distribution function."""
        if self.numbers != 2:
            return None
        places = torch.special.ndtri((torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE)
        down, across = torch.meshgrid(places.flip(0), places, indexing="ij")
        return Chart(
            _numbers(places.flip(0)),
            _numbers(places),
            torch.stack([across, down], -1).float(),
            "Codes on a grid whose lines part the standard normal prior into shares of equal probability: rows are the "
            "second dimension, columns the first.",
        )


class Mixture(Prior):
    """K equally likely 2-D Gaussians on a circle, long towards its centre and narrow across."""

    numbers = 3
    radius, along = 2.0, 0.5  # of the circle of means; standard deviation towards the centre

    def __init__(self, components: int) -> None:
        self.components = components
        narrow = self.radius * math.sin(math.pi / components) / 3  # neighbours' means lie 6 of it apart
        self.across = min(narrow, self.along) if components > 2 else self.along

    def draw(self, normal: Tensor) -> Tensor:
        """The third number decides the component, the others the place in it."""
        share = torch.special.ndtr(normal[:, 2])
        k = (share * self.components).floor().clamp(0, self.components - 1)
        return self.place(k, normal[:, 0], normal[:, 1])

    def place(self, k: Tensor, towards: Tensor, across: Tensor) -> Tensor:
        """Points (n, 2) of components k (n,), at so many standard deviations (n,) from its mean, outwards and left."""
        angle = k * (2 * math.pi / self.components)
        outwards = torch.stack([angle.cos(), angle.sin()], 1)
        left = torch.stack([-angle.sin(), angle.cos()], 1)
        length = self.radius + self.along * towards
        return length[:, None] * outwards + (self.across * across)[:, None] * left

    def chart(self) -> Chart:
        """A row a component, from the inside out along its longer axis."""
        shown, places = min(self.components, 20), torch.special.ndtri((torch.arange(SIDE) + 0.5) / SIDE)
        k, towards = torch.meshgrid(torch.arange(shown).float(), places, indexing="ij")
        points = self.place(k.flatten(), towards.flatten(), torch.zeros(shown * SIDE))
        rows = tuple(f"component {i + 1}" for i in range(shown))
        told = f"A row each of {shown} of the prior's {self.components} Gaussians, along its longer axis, in standard "
        told += "deviations from its mean."
        return Chart(rows, _numbers(places), points.view(shown, SIDE, 2), told)


class SwissRoll(Prior):
    """A spiral from the centre outwards, evenly filled along its length, with a little normal noise."""

    numbers = 3
    radius, turns, noise = 3.0, 2.0, 0.1

    def draw(self, normal: Tensor) -> Tensor:
        """The first number decides the place on the spiral, the others the noise."""
        return self.place(torch.special.ndtr(normal[:, 0])) + self.noise * normal[:, 1:]

    def place(self, share: Tensor) -> Tensor:
        """Points (n, 2) of the spiral that so great a share (n,) of it in [0, 1] lies inside of."""
        t = share.sqrt()  # the length of r = c t grows as t^2, but for the innermost part
        angle = 2 * math.pi * self.turns * t
        return (self.radius * t)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)

    def chart(self) -> Chart:
        """Along the spiral, a line of text after the other."""
        share = (torch.arange(SIDE * SIDE) + 0.5) / (SIDE * SIDE)
        rows = tuple(f"from {i / SIDE:.0%}" for i in range(SIDE))
        columns = tuple(str(i + 1) for i in range(SIDE))
        told = (
            "Codes along the spiral from its centre outwards, to be read as a text; rows say which share lies behind."
        )
        return Chart(rows, columns, self.place(share).view(SIDE, SIDE, 2), told)


def prior_for(name: PriorName, latent: int, components: int) -> Prior:
    """The prior of this name.

    Raises:
        UserError: if it is one of two dimensions and the code is not, or has less than one component.
    """
    if name == "gaussian":
        return Gaussian(latent)
    if latent != 2:
        raise UserError(f"aae.prior: {name} lies in 2 dimensions, expected latent = 2, got {latent}")
    if name == "swiss_roll":
        return SwissRoll()
    if components < 1:
        raise UserError(f"aae.components: expected at least 1, got {components}")
    return Mixture(components)


def _numbers(places: Tensor) -> tuple[str, ...]:
    return tuple(f"{float(place):.2g}".replace("-", "\u2212") for place in places)
