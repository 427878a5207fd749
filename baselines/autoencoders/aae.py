"""Adversarial autoencoder: a discriminator makes codes look like draws of a prior (Makhzani et al. 2015, 1511.05644).

Each iteration has three updates in the order of the paper's section 2, each of parameters of its own: encoder and
decoder towards the reconstruction; the discriminator towards telling draws of the prior (1) from codes (0); the encoder
towards codes that the discriminator takes for draws. The encoder is the paper's deterministic one.

Departures for small images: residual convolutions in place of two layers of 1000 units, Adam in place of SGD, and
layers of LeakyReLU in the discriminator. The encoder minimises -log D, as the authors of GANs advise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoencoders.bottleneck import Bottleneck, PixelLoss
from baselines.autoencoders.priors import Chart, PriorName, prior_for
from baselines.contract import (
    Batch,
    Context,
    ImageShape,
    Losses,
    Model,
    OptimiserConfig,
    Phase,
    Training,
)
from baselines.errors import UserError


@dataclass(frozen=True)
class Config:
    """Sizes, prior and learning rates; the defaults are tuned for 8x8 digits."""

    latent: int = 8  # dimensions of the code
    prior: PriorName = "gaussian"  # mixture and swiss_roll lie in two dimensions
    components: int = 10  # Gaussians of the mixture
    loss: PixelLoss = "mse"
    width: int = 32  # channels next to the image; they double with every halving
    widest: int = 128  # the most channels of any layer
    blocks: int = 1  # residual blocks at each size
    dropout: float = 0.0
    units: int = 256  # of each of the discriminator's two hidden layers
    slope: float = 0.2  # of LeakyReLU in the discriminator
    lr: float = 2e-3  # of the reconstruction
    lr_discriminator: float = 1e-3
    lr_encoder: float = 5e-4  # of the encoder against the discriminator
    beta1: float = 0.5  # of Adam, of the two adversarial updates
    warmup: float = 0.02  # fraction of the budget
    decay: str = "cosine"
    training: Training = Training(batch_size=64, ema_decay=0.998)

    def __post_init__(self) -> None:
        if min(self.latent, self.width, self.widest, self.units) < 1 or self.blocks < 0:
            raise UserError(
                "aae: expected latent, width, widest and units of at least 1 and blocks of at least 0, got "
                f"{self.latent}, {self.width}, {self.widest}, {self.units} and {self.blocks}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"aae: expected a dropout in [0, 1), got {self.dropout}")
        prior_for(self.prior, self.latent, self.components)


class Aae(Bottleneck):
    """Encoder, decoder, and a discriminator of codes, whatever prior the codes are to follow."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        c = config
        super().__init__(shape, c.latent, c.loss, c.width, c.widest, c.blocks, c.dropout)
        self.config = config
        self.training_config = config.training
        self.codes = prior_for(c.prior, c.latent, c.components)
        self.latent = self.codes.numbers
        self.discriminator = discriminator(c.latent, c.units, c.slope)

    def phases(self) -> tuple[Phase, ...]:
        """Reconstruction, discriminator, encoder."""
        c = self.config
        betas = (c.beta1, 0.999)
        first = OptimiserConfig(lr=c.lr, warmup=c.warmup, decay=c.decay)
        second = OptimiserConfig(lr=c.lr_discriminator, betas=betas, warmup=c.warmup, decay=c.decay)
        third = OptimiserConfig(lr=c.lr_encoder, betas=betas, warmup=c.warmup, decay=c.decay)
        return (
            Phase("reconstruction", ("encoder", "decoder"), self.reconstruction_loss, first),
            Phase("discriminator", ("discriminator",), self.discriminator_loss, second),
            Phase("encoder", ("encoder",), self.encoder_loss, third),
        )

    def reconstruction_loss(self, batch: Batch, context: Context) -> Losses:
        """The error of the reconstruction, mean over pixels."""
        return Losses(self.reconstruction_error(batch.images))

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(draw of the prior) - E log(1 - D(code))."""
        with torch.no_grad():
            codes = self.encode(batch.images)
        draws = self.codes.draw(context.normal(len(codes), self.codes.numbers))
        on_draws, on_codes = self.discriminator(draws), self.discriminator(codes)
        parts = {
            "prior": F.softplus(-on_draws).mean(),
            "codes": F.softplus(on_codes).mean(),
            "accuracy": ((on_draws > 0).float().mean() + (on_codes < 0).float().mean()) / 2,
        }
        return Losses(parts["prior"] + parts["codes"], parts)

    def encoder_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(code)."""
        return Losses(F.softplus(-self.discriminator(self.encode(batch.images))).mean())

    def code(self, z: Tensor) -> Tensor:
        """The draws of the chosen prior that standard normal z (B, latent) makes, (B, K)."""
        return self.codes.draw(z)

    def chart(self) -> Chart | None:
        """The prior's own."""
        return self.codes.chart()


def discriminator(latent: int, units: int, slope: float) -> nn.Sequential:
    """Codes (B, latent) to logits (B,) of being a draw of the prior."""
    layers = [nn.Linear(latent, units), nn.LeakyReLU(slope), nn.Linear(units, units), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers, nn.Linear(units, 1), nn.Flatten(0))


MODEL = Model("AAE", "Makhzani et al. 2015, arXiv:1511.05644", Config, Aae)
