"""What the deterministic autoencoders have in common: encoder, decoder, and the loss of a reconstruction.

Departure from the papers' fully connected layers: residual convolutions, which learn small images faster.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.autoencoders import pictures
from baselines.autoencoders.priors import Chart
from baselines.contract import (
    Draw,
    GenerativeModel,
    Given,
    HasLatent,
    HasPrior,
    Illustrates,
    ImageShape,
    Noise,
    Reconstructs,
    Strip,
    Trains,
)
from baselines.data.likelihood import from_signed, to_signed, to_unit
from baselines.nets.resnet import image_to_vector, vector_to_image

PixelLoss = Literal["mse", "bce"]
"""How far a reconstruction is off: squared error, or cross-entropy with grey values as probabilities."""


class Bottleneck(GenerativeModel, Trains, HasLatent, HasPrior, Reconstructs, Illustrates):
    """x -> encoder -> code (B, K) -> decoder -> x, the same code for the same image every time.

    As `HasLatent` its latent is the standard normal z that the codes it draws are made of; its dimensions may be more.
    """

    averaged: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    network: ClassVar[str | None] = "decoder"

    def __init__(
        self, shape: ImageShape, dims: int, loss: PixelLoss, width: int, widest: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.shape, self.pixel_loss = shape, loss
        size, sizes = (shape.height, shape.width), (width, widest, blocks, dropout)
        self.encoder = image_to_vector(size, shape.channels, dims, *sizes)
        self.decoder = vector_to_image(size, dims, shape.channels, *sizes)

    @abstractmethod
    def code(self, z: Tensor) -> Tensor:
        """Standard normal z (B, latent) to draws of the distribution that this model draws codes from, (B, K)."""

    def encode(self, x: Tensor) -> Tensor:
        """The codes (B, K) of uint8 x."""
        codes: Tensor = self.encoder(to_signed(x, self.shape.levels).to(self._dtype))
        return codes

    def pixels(self, codes: Tensor) -> Tensor:
        """Codes (B, K) to real-valued pixels (B, C, H, W) in [-1, 1], not rounded to levels."""
        return to_pixels(self.pixel_loss, self.decoder(codes.to(self._dtype)))

    def images(self, codes: Tensor) -> Tensor:
        """Codes (B, K) to uint8 (B, C, H, W)."""
        return from_signed(self.pixels(codes), self.shape.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Through the code and back, rounded to levels."""
        return self.images(self.encode(x))

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """The mean loss over pixels and images of uint8 x, 0-d."""
        return pixel_error(self.pixel_loss, self.decoder(self.encode(x)), x, self.shape.levels)

    def prior(self, n: int, noise: Noise) -> Tensor:
        """Draws of the distribution that codes are drawn from, (n, K)."""
        return self.code(noise.normal("z", n, (self.latent,)))

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """The decoder's images of such draws, rounded to levels."""
        self.check_draw(None, draw)
        return self.images(self.prior(n, noise))

    def decode(self, z: Tensor) -> Tensor:
        """The decoder's pixels of the code that z makes, (B, C, H, W) in [-1, 1]."""
        return self.pixels(self.code(z))

    @abstractmethod
    def chart(self) -> Chart | None:
        """Codes that show the whole space of codes; None if two directions cannot."""

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Reconstructions, walks between test images, and the map of the space or walks between draws."""
        codes, chart = self.encode(real), self.chart()
        shown = (
            pictures.reconstructions(real, self.images(codes)),
            pictures.between_images(real, codes, self.images),
        )
        if chart is not None:
            return (*shown, pictures.charted(chart._replace(points=chart.points.to(real.device)), self.images))
        return (*shown, pictures.between_draws(self.latent, lambda z: self.images(self.code(z)), noise))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.decoder.parameters()).dtype


def pixel_error(loss: PixelLoss, out: Tensor, x: Tensor, levels: int) -> Tensor:
    """The mean over all pixels of the decoder's output and uint8 x, both (B, C, H, W), 0-d.

    mse: squared error of pixels in [0, 1], the output being the pixel on [-1, 1]. bce: cross-entropy in nats of the
    grey value in [0, 1], taken as a probability, with the logit that the output is; it is least where both agree.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(out, to_unit(x, levels, out.dtype))
    return F.mse_loss(out, to_signed(x, levels).to(out.dtype)) / 4


def to_pixels(loss: PixelLoss, out: Tensor) -> Tensor:
    """The decoder's output as pixels in [-1, 1]: clamped (mse), or twice the probability less 1 (bce)."""
    return 2 * torch.sigmoid(out) - 1 if loss == "bce" else out.clamp(-1, 1)
