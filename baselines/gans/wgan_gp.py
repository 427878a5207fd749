"""Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv:1704.00028).

The critic f minimises E f(G(z)) - E f(x) + lambda E (|grad f(x^)| - 1)^2, x^ evenly between real and generated images
(their eq. 3); the generator minimises -E f(G(z)). For each of its updates the critic has n_critic (algorithm 1). The
critic has no batch norm, since the penalty is on each image by itself. E f(x) - E f(G(z)) of held-out images estimates
the Wasserstein-1 distance, in Euclidean distance of pixels in [-1, 1].

The paper's lambda is 10, its n_critic 5 and its Adam (1e-4, 0, 0.9). For small networks and short budgets n_critic is
2 here, and learning rates are larger and die away; samples come from an average of G's weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.contract import (
    Batch,
    Context,
    HasCritic,
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
from baselines.gans.losses import gradient_penalty
from baselines.gans.networks import critic, generator


@dataclass(frozen=True)
class Config:
    """Sizes and learning rates; the defaults are tuned for 8x8 digits."""

    latent: int = 64  # dimensions of z
    width: int = 32  # channels of G next to the image; they double with every halving
    critic_width: int = 16  # the same of the critic
    widest: int = 256  # the most channels of any layer
    slope: float = 0.2  # of LeakyReLU in the critic
    penalty: float = 10.0  # lambda
    critic_steps: int = 2  # n_critic; the paper has 5
    lr_generator: float = 2e-3
    lr_critic: float = 4e-3
    beta1: float = 0.0  # of Adam
    beta2: float = 0.9
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=32, ema_decay=0.995, snapshots=20)

    def __post_init__(self) -> None:
        for name in ("latent", "width", "critic_width", "widest", "critic_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"wgan_gp.{name}: expected at least 1, got {getattr(self, name)}")
        if self.penalty <= 0:
            raise UserError(f"wgan_gp.penalty: expected a positive weight, got {self.penalty}")


class WganGp(LatentGan, HasCritic):
    """A generator of tanh images in [-1, 1], and the critic whose slope is held near 1."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, config.latent, config.training)
        self.config: Config = config
        self.generator = generator(shape, config.latent, config.width, config.widest, config.training.ema_decay)
        self.critic = critic(shape, config.critic_width, config.widest, config.slope)

    def phases(self) -> tuple[Phase, ...]:
        """The critic n_critic times, each on a batch of its own, then the generator."""
        c = self.config
        betas = (c.beta1, c.beta2)
        f = OptimiserConfig(lr=c.lr_critic, betas=betas, decay=c.decay)
        g = OptimiserConfig(lr=c.lr_generator, betas=betas, decay=c.decay)
        return (
            Phase("critic", ("critic",), self.critic_loss, f, repeat=c.critic_steps),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def critic_loss(self, batch: Batch, context: Context) -> Losses:
        """E f(G(z)) - E f(x) + lambda E (|grad f(x^)| - 1)^2; the part `distance` is E f(x) - E f(G(z))."""
        x = to_signed(batch.images, self.shape.levels)
        with torch.no_grad():
            images = self.generator(context.normal(len(x), self.config.latent))
        real, fake = self.critic(torch.cat([x, images])).chunk(2)
        distance = real.mean() - fake.mean()
        penalty = gradient_penalty(self.critic, x, images, context.uniform(len(x)))
        return Losses(self.config.penalty * penalty - distance, {"distance": distance, "penalty": penalty})

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E f(G(z))."""
        images = self.generator(context.normal(len(batch.images), self.config.latent))
        return Losses(-self.critic(images).mean())

    def criticise(self, images: Tensor) -> Tensor:
        """f of images (B, C, H, W) in [-1, 1], (B,)."""
        values: Tensor = self.critic(images)
        return values


MODEL = Model("WGAN-GP", "Gulrajani et al. 2017, arXiv:1704.00028", Config, WganGp)
