"""What the deterministic autoencoders have in common: encoder, decoder, and the loss of a reconstruction.

Departure from the papers' fully connected layers: residual convolutions, which learn small images faster.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.autoencoders import pictures
from baselines.autoencoders.priors import Chart
from baselines.contract import (
    GenerativeModel,
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


class Bottleneck(GenerativeModel, Trains, HasPrior, Reconstructs, Illustrates):
    """x -> encoder -> code (B, latent) -> decoder -> x, the same code for the same image every time."""

    averaged: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    network: ClassVar[str | None] = "decoder"

    def __init__(
        self, shape: ImageShape, latent: int, loss: PixelLoss, width: int, widest: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.shape, self.latent, self.pixel_loss = shape, latent, loss
        size, sizes = (shape.height, shape.width), (width, widest, blocks, dropout)
        self.encoder = image_to_vector(size, shape.channels, latent, *sizes)
        self.decoder = vector_to_image(size, latent, shape.channels, *sizes)

    def encode(self, x: Tensor) -> Tensor:
        """The codes (B, latent) of uint8 x."""
        codes: Tensor = self.encoder(to_signed(x, self.shape.levels).to(self._dtype))
        return codes

    def pixels(self, codes: Tensor) -> Tensor:
        """Codes (B, latent) to real-valued pixels (B, C, H, W) in [-1, 1], not rounded to levels."""
        return to_pixels(self.pixel_loss, self.decoder(codes.to(self._dtype)))

    def images(self, codes: Tensor) -> Tensor:
        """Codes (B, latent) to uint8 (B, C, H, W)."""
        return from_signed(self.pixels(codes), self.shape.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Through the code and back, rounded to levels."""
        return self.images(self.encode(x))

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """The mean loss over pixels and images of uint8 x, 0-d."""
        return pixel_error(self.pixel_loss, self.decoder(self.encode(x)), x, self.shape.levels)

    def chart(self) -> Chart | None:
        """Codes that show the whole space of codes; None if two directions cannot."""
        return None

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
        return (*shown, self.walks(noise))

    def walks(self, noise: Noise) -> Strip:
        """Walks between draws of a prior that is standard normal."""
        return pictures.between_draws(self.latent, self.images, noise)

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
