"""ProGAN: a GAN that grows with the size of its images (Karras et al. 2018, arXiv:1710.10196).

Both networks begin at the smallest size and double it stage by stage; a new stage is faded in, in the generator, in the
discriminator and in the real images alike. The loss is that of WGAN-GP with one step of D for each of G (Gulrajani et
al. 2017, arXiv:1704.00028, eq. 3) and a drift term 0.001 E[D(x)^2] (appendix A.1); learning rates are equalised, G has
pixel norm and is drawn from with averaged weights, D sees the batch's deviation.

For small data: fewer channels, averages that look back less far, and fractions of the budget in place of 800,000 images
a stage. Learning rates fall to 0 from twenty times the paper's 1e-3: weights of size 1, scaled in use, move
by about the rate a step, and there are thousands of steps here in place of hundreds of thousands. Half a level of
uniform noise either way, at the full size and then brought to the stage's, hides from D that real images lie on levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLatent,
    HasResolutions,
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
from baselines.gans.losses import slope_penalty
from baselines.gans.progressive import (
    GrowingDiscriminator,
    GrowingGenerator,
    Growth,
    at_growth,
    growth_at,
    resolutions,
)
from baselines.nets.interpolation import interpolation

SHOWN = 10  # latents whose images are shown at each size
_REMEMBERED = 0.5  # of the time that a stage learns by itself, from which on its weights are averaged


@dataclass(frozen=True)
class Config:
    """Sizes, losses and learning rates; the defaults are tuned for digits of 16x16."""

    latent: int = 64  # dimensions of z
    width: int = 8  # channels at the full size; they double with every halving
    widest: int = 64  # the most channels of any layer
    grown: float = 0.4  # fraction of the budget after which all stages are there
    penalty: float = 10.0  # weight of the gradient penalty
    drift: float = 1e-3  # weight of E[D(x)^2]
    lr: float = 2e-2  # of both networks, whose weights are of size 1; the paper has 1e-3
    beta1: float = 0.0  # of Adam
    beta2: float = 0.99
    decay: str = "linear"  # of the learning rates over the budget
    training: Training = Training(batch_size=16, ema_decay=0.995)

    def __post_init__(self) -> None:
        for name in ("latent", "width", "widest"):
            if getattr(self, name) < 1:
                raise UserError(f"progan.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("penalty", "drift"):
            if getattr(self, name) < 0:
                raise UserError(f"progan.{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 < self.grown < 1:
            raise UserError(f"progan.grown: expected a fraction of the budget in (0, 1), got {self.grown}")


class Progan(GenerativeModel, Trains, HasLatent, HasResolutions, Illustrates):
    """A generator and a discriminator that grow, and the generator's weights as each stage left them."""

    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    coupled = "its discriminator sees the deviation over the batch"
    network: ClassVar[str | None] = "generator"
    remembered: Tensor

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.latent = config.latent
        self.resolutions = resolutions((shape.height, shape.width))
        last = len(self.resolutions) - 1
        widths = tuple(min(config.width * 2 ** (last - stage), config.widest) for stage in range(last + 1))
        self.generator = GrowingGenerator(config.latent, self.resolutions, widths, shape.channels)
        self.discriminator = GrowingDiscriminator(self.resolutions, widths, shape.channels)
        for stage in range(last):
            vector = parameters_to_vector(self._weights(stage).values()).detach()
            self.register_buffer(f"stage_{stage}", vector)
        self.register_buffer("remembered", torch.zeros(max(last, 1), dtype=torch.int64))

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, then generator."""
        config = self.config
        optimiser = OptimiserConfig(lr=config.lr, betas=(config.beta1, config.beta2), decay=config.decay)
        return (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, optimiser),
            Phase("generator", ("generator",), self.generator_loss, optimiser),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """E D(G(z)) - E D(x) + penalty E(|grad D| - 1)^2 + drift E D(x)^2."""
        growth = self.growth(context.fraction)
        with torch.no_grad():
            fake = self.generator(context.normal(len(batch.images), self.latent), growth)
            fake = fake + self._blur(len(fake), growth, context)
            real = at_growth(to_signed(batch.images, self.shape.levels), growth, len(self.resolutions))
            real = real + self._blur(len(real), growth, context)
        on_real, on_fake = self.discriminator(real, growth), self.discriminator(fake, growth)
        between = torch.lerp(real, fake, context.uniform(len(real), 1, 1, 1))
        penalty = slope_penalty(lambda x: self.discriminator(x, growth), between)
        distance = on_real.mean() - on_fake.mean()
        total = self.config.penalty * penalty + self.config.drift * on_real.square().mean() - distance
        return Losses(total, {"distance": distance, "penalty": penalty})

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E D(G(z)); beside it the stage's weights are remembered where it is about to be left."""
        growth = self.growth(context.fraction)
        self._remember(growth)
        fake = self.generator(context.normal(len(batch.images), self.latent), growth)
        return Losses(-self.discriminator(fake + self._blur(len(fake), growth, context), growth).mean())

    def growth(self, fraction: float) -> Growth:
        """Where the growth stands when a fraction of the budget is done."""
        return growth_at(fraction, len(self.resolutions), self.config.grown)

    def _blur(self, n: int, growth: Growth, context: Context) -> Tensor:
        """Half a level of uniform noise either way, as images of the full size would bring it to this stage."""
        noise = (2 * context.uniform(n, *self.shape.chw) - 1) / (self.shape.levels - 1)
        return at_growth(noise, growth, len(self.resolutions))

    @torch.no_grad()
    def _remember(self, growth: Growth) -> None:
        """Average the weights of a stage over the last part of the time that it learns by itself."""
        if growth.alpha < 1 or growth.settled < _REMEMBERED or growth.stage == len(self.resolutions) - 1:
            return
        self.remembered[growth.stage] += 1
        vector = parameters_to_vector(self._weights(growth.stage).values())
        self.get_buffer(f"stage_{growth.stage}").lerp_(vector, 1 / float(self.remembered[growth.stage]))

    def _weights(self, stage: int) -> Mapping[str, nn.Parameter]:
        """The generator's parameters that images of a stage are made with, by name."""
        used = ("dense.", "start.", *(f"blocks.{i}." for i in range(stage)), f"to_image.{stage}.")
        return {name: value for name, value in self.generator.named_parameters() if name.startswith(used)}

    # Sampling

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """G(z) at the full size, rounded to levels."""
        self.check_draw(None, draw)
        return from_signed(self.decode(noise.normal("z", n, (self.latent,))), self.shape.levels)

    def decode(self, z: Tensor) -> Tensor:
        """G(z) clamped, (B, C, H, W) in [-1, 1]."""
        images: Tensor = self.generator(z)
        return images.clamp(-1, 1)

    def sample_at(self, resolution: int, n: int, noise: Noise) -> Tensor:
        """G(z) as the stage of this size left it, its weights averaged; at the full size what `sample` draws."""
        if resolution == len(self.resolutions) - 1:
            return self.sample(n, Draw(), noise)
        weights, vector, first = {}, self.get_buffer(f"stage_{resolution}"), 0
        for name, value in self._weights(resolution).items():
            weights[name] = vector[first : first + value.numel()].view_as(value)
            first += value.numel()
        z = noise.normal("z", n, (self.latent,))
        images = functional_call(self.generator, weights, (z, Growth(resolution)))
        return from_signed(images, self.shape.levels)

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """The same latents at each size, as the stages left them; then walks between latents."""

        def decode(z: Tensor) -> Tensor:
            return from_signed(self.decode(z), self.shape.levels)

        full = self.resolutions[-1]
        rows = []
        for stage, size in enumerate(self.resolutions):
            images = self.sample_at(stage, SHOWN, noise)
            rows.append(images.repeat_interleave(full[0] // size[0], 2).repeat_interleave(full[1] // size[1], 3))
        grown = Strip(
            "Growth from size to size",
            "A column is one latent, a row one size of images. All but the last are drawn with the weights that the "
            "generator had when it went on to the next size. What a stage has learned the next one refines.",
            tuple(f"{height}x{width}" for height, width in self.resolutions),
            ("",) * SHOWN,
            torch.stack(rows).cpu(),
        )
        caption = "Images of latents between two normal draws, along the great circle."
        return grown, interpolation("Interpolation in the latent space", caption, (self.latent,), decode, noise)


MODEL = Model("ProGAN", "Karras et al. 2018, arXiv:1710.10196", Config, Progan)
