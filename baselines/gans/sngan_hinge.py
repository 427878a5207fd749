"""GAN with spectral normalisation and the hinge loss (Miyato et al. 2018, arXiv:1802.05957).

Each layer of the discriminator is divided by its largest singular value, which one step of power iteration an update
follows (their algorithm 1; a convolution's weights as the matrix outputs x everything else, section 2.1 and appendix
A). The discriminator minimises E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) (eq. 16), the generator -E D(G(z)) (eq. 17).

As in the paper (table 3), convolutions of stride 1 and such as halve take turns in the discriminator, down to 4x4.
Learning rates are larger than the paper's and die away, for short budgets; samples come from an average of G's weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

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
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.latent_gan import LatentGan
from baselines.gans.losses import blurred, hinge_loss
from baselines.gans.networks import critic, generator

POWER_ITERATIONS = 1  # an update


@dataclass(frozen=True)
class Config:
    """Sizes and learning rates; the defaults are tuned for 8x8 digits."""

    latent: int = 64  # dimensions of z
    width: int = 32  # channels of G next to the image; they double with every halving
    discriminator_width: int = 24  # the same of D
    widest: int = 256  # the most channels of any layer
    slope: float = 0.1  # of LeakyReLU in D
    discriminator_steps: int = 2  # updates of D for each of G; the paper has 1 to 5
    lr_generator: float = 1e-3
    lr_discriminator: float = 4e-3
    beta1: float = 0.0  # of Adam
    beta2: float = 0.9
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=32, ema_decay=0.995, snapshots=20)

    def __post_init__(self) -> None:
        for name in ("latent", "width", "discriminator_width", "widest", "discriminator_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"sngan_hinge.{name}: expected at least 1, got {getattr(self, name)}")


class SnganHinge(LatentGan):
    """A generator of tanh images in [-1, 1], and a discriminator whose layers have spectral norm 1."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, config.latent, config.training)
        self.config: Config = config
        self.generator = generator(shape, config.latent, config.width, config.widest, config.training.ema_decay)
        self.discriminator = critic(shape, config.discriminator_width, config.widest, config.slope, _normalised, True)

    def phases(self) -> tuple[Phase, ...]:
        """The discriminator, then the generator."""
        c = self.config
        betas = (c.beta1, c.beta2)
        d = OptimiserConfig(lr=c.lr_discriminator, betas=betas, decay=c.decay)
        g = OptimiserConfig(lr=c.lr_generator, betas=betas, decay=c.decay)
        return (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, d, repeat=c.discriminator_steps),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))."""
        levels = self.shape.levels
        with torch.no_grad():
            images = self.generator(context.normal(len(batch.images), self.config.latent))
        both = torch.cat([to_signed(batch.images, levels), images])
        real, fake = self.discriminator(blurred(both, levels, context)).chunk(2)
        return hinge_loss(real, fake)

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E D(G(z))."""
        images = self.generator(context.normal(len(batch.images), self.config.latent))
        return Losses(-self.discriminator(blurred(images, self.shape.levels, context)).mean())


def _normalised(layer: nn.Module) -> nn.Module:
    """The layer over its largest singular value."""
    return spectral_norm(layer, n_power_iterations=POWER_ITERATIONS)


MODEL = Model("SNGAN", "Miyato et al. 2018, arXiv:1802.05957", Config, SnganHinge)
