"""DCGAN: a convolutional generator against a convolutional discriminator (Radford et al. 2016, arXiv:1511.06434).

The objective is that of Goodfellow et al. 2014 (arXiv:1406.2661): the discriminator minimises
-E log D(x) - E log(1 - D(G(z))), the generator the non-saturating -E log D(G(z)) (their section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLatent,
    Illustrates,
    ImageShape,
    Losses,
    Model,
    Noise,
    OptimiserConfig,
    Phase,
    Strip,
    Training,
    Trains,
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.errors import UserError
from baselines.nets.arithmetic import arithmetic
from baselines.nets.conv import double, halve, halvings
from baselines.nets.interpolation import interpolation


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


class Dcgan(GenerativeModel, Trains, HasLatent, Illustrates):
    """A generator of tanh images in [-1, 1], and the discriminator it learns from."""

    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    network: ClassVar[str | None] = "generator"

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.latent = config.latent
        self.generator = generator(shape, config)
        self.discriminator = discriminator(shape, config)
        self.apply(_initialise)

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
        with torch.no_grad():
            images = self.generator(context.normal(len(batch.images), self.config.latent))
        # Real and generated images go in apart, as in the authors' code: batch norm then hides from D what all images
        # of a batch have in common, without which it wins at once
        real = self.discriminator(self._blur(to_signed(batch.images, self.shape.levels), context))
        return discriminator_loss(real, self.discriminator(self._blur(images, context)))

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(G(z))."""
        images = self.generator(context.normal(len(batch.images), self.config.latent))
        return generator_loss(self.discriminator(self._blur(images, context)))

    def _blur(self, images: Tensor, context: Context) -> Tensor:
        """Half a level of uniform noise either way: else the grid of levels alone tells real from generated images."""
        return images + (2 * context.uniform(*images.shape) - 1) / (self.shape.levels - 1)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """G(z) with batch norm's running statistics, rounded to levels."""
        self.check_draw(None, draw)
        return from_signed(self.decode(noise.normal("z", n, (self.latent,))), self.shape.levels)

    def decode(self, z: Tensor) -> Tensor:
        """G(z), (B, C, H, W) in [-1, 1]."""
        images: Tensor = self.generator(z)
        return images

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Walks between pairs of z along great circles, and sums of z (sections 6.1 and 6.3.2 of the paper)."""

        def decode(z: Tensor) -> Tensor:
            return from_signed(self.decode(z), self.shape.levels)

        caption = (
            "Images of latents between two normal draws, along the great circle. Smooth changes without jumps, and "
            "images that look real all the way, tell of a space that is learned and not of memorised images."
        )
        walks = interpolation("Interpolation in the latent space", caption, (self.latent,), decode, noise)
        return walks, arithmetic(self.latent, self.shape.levels, decode, noise)


class SlowBatchNorm(nn.BatchNorm2d):
    """Batch norm whose running statistics look back as far as the moving average of the weights does.

    The statistics that fit averaged weights are averages too; those of torch's usual momentum of 0.1 belong to the
    last weights. It starts as fast as that average: with weight 9 / (9 + batches seen), down to `slowest`.
    """

    def __init__(self, channels: int, slowest: float) -> None:
        super().__init__(channels)
        self.slowest = slowest

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        if self.training:
            assert self.num_batches_tracked is not None
            self.momentum = max(self.slowest, 9 / (9 + int(self.num_batches_tracked)))
        return super().forward(x)


def discriminator_loss(real: Tensor, fake: Tensor) -> Losses:
    """-E log D(x) - E log(1 - D(G(z))) from D's logits on real and generated images, (B,) each."""
    on_real, on_fake = F.softplus(-real).mean(), F.softplus(fake).mean()
    parts = {
        "real": on_real,
        "fake": on_fake,
        "accuracy": ((real > 0).float().mean() + (fake < 0).float().mean()) / 2,
    }
    return Losses(on_real + on_fake, parts)


def generator_loss(fake: Tensor) -> Losses:
    """The non-saturating -E log D(G(z)) from D's logits on generated images (B,)."""
    return Losses(F.softplus(-fake).mean())


def generator(shape: ImageShape, config: Config) -> nn.Sequential:
    """z (B, latent) to images (B, C, H, W) in (-1, 1): transposed convolutions, batch norm, ReLU; tanh at the end."""
    sizes, widths = _plan(shape, config)
    first = nn.ConvTranspose2d(config.latent, widths[-1], sizes[-1], bias=False)
    slowest = min(1 - config.training.ema_decay, 0.1)
    layers: list[nn.Module] = [nn.Unflatten(1, (config.latent, 1, 1)), first]
    for stage in range(len(sizes) - 2, -1, -1):
        layers += [SlowBatchNorm(widths[stage + 1], slowest), nn.ReLU()]
        out = widths[stage] if stage else shape.channels
        layers += [double(widths[stage + 1], out, sizes[stage], bias=stage == 0)]
    return nn.Sequential(*layers, nn.Tanh())


def discriminator(shape: ImageShape, config: Config) -> nn.Sequential:
    """Images (B, C, H, W) to logits (B,): strided convolutions and LeakyReLU, batch norm after all but the first."""
    sizes, widths = _plan(shape, config)
    layers: list[nn.Module] = []
    for stage in range(len(sizes) - 1):
        into = widths[stage] if stage else shape.channels
        layers += [halve(into, widths[stage + 1], sizes[stage], bias=stage == 0)]
        layers += [nn.BatchNorm2d(widths[stage + 1])] if stage else []
        layers += [nn.LeakyReLU(config.slope)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, sizes[-1]), nn.Flatten(0))


def _plan(shape: ImageShape, config: Config) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Sizes from the image down to 4x4 or less, by three halvings at least; channels of each (the image's unused)."""
    sizes = halvings((shape.height, shape.width), smallest=4, fewest=3)
    widths = tuple(min(config.width * 2 ** max(stage - 1, 0), config.widest) for stage in range(len(sizes)))
    return sizes, widths


def _initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), batch norm's gains N(1, 0.02) (section 4 of the paper, and its code)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


MODEL = Model("DCGAN", "Radford et al. 2016, arXiv:1511.06434", Config, Dcgan)
