"""What all GANs that draw from noise alone have in common: a generator of z, its samples, and walks between latents."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.contract import (
    Draw,
    GenerativeModel,
    Given,
    HasLatent,
    Illustrates,
    ImageShape,
    Noise,
    Strip,
    Training,
    Trains,
)
from baselines.data.likelihood import from_signed
from baselines.nets.arithmetic import arithmetic
from baselines.nets.interpolation import interpolation


class LatentGan(GenerativeModel, Trains, HasLatent, Illustrates):
    """Images G(z) in [-1, 1] of normal z; a subclass sets `generator`, and brings whom it learns from."""

    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    network: ClassVar[str | None] = "generator"
    generator: nn.Module

    def __init__(self, shape: ImageShape, config: Any, latent: int, training: Training) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.latent = latent
        self.training_config = training

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """G(z), with batch norm's running statistics where it has some, rounded to levels."""
        self.check_draw(None, draw)
        return from_signed(self.decode(noise.normal("z", n, (self.latent,))), self.shape.levels)

    def decode(self, z: Tensor) -> Tensor:
        """G(z), (B, C, H, W) in [-1, 1]."""
        images: Tensor = self.generator(z)
        return images

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Walks between pairs of z along great circles, and sums of z (Radford et al. 2016, sections 6.1 and 6.3.2)."""

        def decode(z: Tensor) -> Tensor:
            return from_signed(self.decode(z), self.shape.levels)

        caption = (
            "Images of latents between two normal draws, along the great circle. Smooth changes without jumps, and "
            "images that look real all the way, tell of a space that is learned and not of memorised images."
        )
        walks = interpolation("Interpolation in the latent space", caption, (self.latent,), decode, noise)
        return walks, arithmetic(self.latent, self.shape.levels, decode, noise)
