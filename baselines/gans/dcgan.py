"""DCGAN: a convolutional generator against a convolutional discriminator (Radford et al. 2016, arXiv:1511.06434).

The objective is that of Goodfellow et al. 2014 (arXiv:1406.2661): the discriminator minimises
-E log D(x) - E log(1 - D(G(z))), the generator the non-saturating -E log D(G(z)) (their section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
from baselines.gans.losses import blurred, discriminator_loss, generator_loss
from baselines.gans.networks import discriminator, generator, initialise


@dataclass(frozen=True)
class Config:
    """Sizes and learning rates; the defaults are tuned for 8x8 digits."""

    latent: int = 64  # dimensions of z
    width: int = 48  # channels next to the image; they double with every halving
    widest: int = 512  # the most channels of any layer
    slope: float = 0.2  # of LeakyReLU in D
    lr_generator: float = 5.5e-4
    lr_discriminator: float = 5.5e-4
    beta1: float = 0.5  # of Adam
    generator_steps: int = 1  # updates of G for each of D; two help where D wins at once
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=32, ema_decay=0.998)

    def __post_init__(self) -> None:
        for name in ("latent", "width", "widest", "generator_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"dcgan.{name}: expected at least 1, got {getattr(self, name)}")


class Dcgan(LatentGan):
    """A generator of tanh images in [-1, 1], and the discriminator it learns from."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, config.latent, config.training)
        self.config: Config = config
        self.generator = generator(shape, config.latent, config.width, config.widest, config.training.ema_decay)
        self.discriminator = discriminator(shape, config.width, config.widest, config.slope)
        self.apply(initialise)

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, where its turn has come, then generator."""
        betas = (self.config.beta1, 0.999)
        d = OptimiserConfig(lr=self.config.lr_discriminator, betas=betas, decay=self.config.decay)
        g = OptimiserConfig(lr=self.config.lr_generator, betas=betas, decay=self.config.decay)
        return (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, d, every=self.config.generator_steps),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(x) - E log(1 - D(G(z)))."""
        levels = self.shape.levels
        with torch.no_grad():
            images = self.generator(context.normal(len(batch.images), self.config.latent))
        # Real and generated images go in apart, as in the authors' code: batch norm then hides from D what all images
        # of a batch have in common, without which it wins at once
        real = self.discriminator(blurred(to_signed(batch.images, levels), levels, context))
        return discriminator_loss(real, self.discriminator(blurred(images, levels, context)))

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(G(z))."""
        images = self.generator(context.normal(len(batch.images), self.config.latent))
        return generator_loss(self.discriminator(blurred(images, self.shape.levels, context)))


MODEL = Model("DCGAN", "Radford et al. 2016, arXiv:1511.06434", Config, Dcgan)
