"""CycleGAN: translation between two domains without pairs (Zhu et al. 2017, arXiv:1703.10593).

G carries sources x to the target domain, F carries targets y back, and each has a discriminator of patches. The
adversarial losses are least squares (their section 4; Mao et al. 2017, arXiv:1611.04076): D minimises
E (D(y) - 1)^2 / 2 + E D(G(x))^2 / 2, and G and F minimise together (their eqs. 1 to 3 and section 5.2)

    E (D_y(G(x)) - 1)^2 + E (D_x(F(y)) - 1)^2
    + lambda (E |F(G(x)) - x| + E |G(F(y)) - y|) + 0.5 lambda (E |G(y) - y| + E |F(x) - x|),

|.| being means over pixels. Of generated images the discriminators see some as they come and in place of others older
ones, out of a pool of 50 (section 4; Shrivastava et al. 2017, arXiv:1612.07828, section 2.3).

For small data it departs from the paper in: small networks, whose patches are of 12x12 pixels and not of 70x70; batches
of more than one image; a learning rate that falls from the start and not from half way; an average of the generators'
weights, which is what translates; and the order of updates, in which the discriminators come second and see new
translations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract import (
    Batch,
    Conditions,
    Context,
    Draw,
    GenerativeModel,
    Given,
    IllustratesRequests,
    ImageShape,
    Losses,
    Model,
    Noise,
    OptimiserConfig,
    Phase,
    Requests,
    Strip,
    Training,
    Trains,
    Translates,
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.errors import UserError
from baselines.nets.translation import image_to_image, image_to_patches

ROWS = 10  # of the pictures


@dataclass(frozen=True)
class Config:
    """Sizes, weights and learning rates; the defaults are tuned for digits of 16x16 and their outlines."""

    width: int = 16  # channels of the generators next to the image; they double with every halving
    blocks: int = 2  # residual blocks of a generator
    down: int = 1  # halvings of a generator before its blocks
    patch_width: int = 32  # channels of the discriminators behind their first halving
    patch_down: int = 1  # halvings of the discriminators: patches of 12x12 pixels with one, of 26x26 with two
    slope: float = 0.2  # of LeakyReLU in the discriminators
    cycle: float = 10.0  # lambda, the weight of the cycle
    identity: float = 0.5  # weight of the identity, as a share of lambda
    pool: int = 50  # translations of each domain that the discriminators are shown again
    lr_generators: float = 2e-3
    lr_discriminators: float = 1e-3
    beta1: float = 0.5  # of Adam
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=4, ema_decay=0.99)

    def __post_init__(self) -> None:
        for name in ("width", "patch_width", "patch_down", "pool"):
            if getattr(self, name) < 1:
                raise UserError(f"cyclegan.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("blocks", "down", "cycle", "identity"):
            if not getattr(self, name) >= 0:
                raise UserError(f"cyclegan.{name}: expected 0 or more, got {getattr(self, name)}")


class Pool(nn.Module):
    """The images that discriminators are shown: of a batch some are new, in place of others come older ones.

    Until it is full it keeps what it gets, and gives it back. Then an image is exchanged with probability 1/2 for one
    of those that are kept, chosen at random; else it comes back itself and is not kept. What is kept are buffers, so
    that training resumes with the same images.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, chw: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *chw))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, new: Tensor, coins: Tensor, places: Tensor) -> Tensor:
        """Images to show for `new`, (B, C, H, W) both, one after another.

        coins: (B,) in [0, 1). places: (B,) integers below the pool's size, which of its images is exchanged.
        """
        shown = new.clone()
        filled, size = int(self.filled), len(self.images)
        for i, (coin, place) in enumerate(zip(coins.tolist(), places.tolist(), strict=True)):
            if filled < size:
                self.images[filled] = new[i]
                filled += 1
            elif coin < 0.5:
                shown[i] = self.images[place]
                self.images[place] = new[i]
        self.filled.fill_(filled)
        return shown


class CycleGan(GenerativeModel, Trains, Translates, IllustratesRequests):
    """G (`to_target`) and F (`to_source`), a discriminator and a pool of each domain; images inside are in [-1, 1]."""

    averaged: ClassVar[tuple[str, ...]] = ("to_target", "to_source")
    coupled = "its pools take one translation after another"
    network: ClassVar[str | None] = "to_target"

    def __init__(self, shape: ImageShape, config: Config, conditions: Conditions) -> None:
        super().__init__()
        source = conditions.source
        if source is None or source.chw != shape.chw:
            raise UserError(f"cyclegan: expected source images of {shape.chw}, got {source and source.chw}")
        self.shape, self.source = shape, source
        self.config = config
        self.training_config = config.training
        size, c = (shape.height, shape.width), config
        self.to_target = image_to_image(size, shape.channels, shape.channels, c.width, c.blocks, c.down)
        self.to_source = image_to_image(size, shape.channels, shape.channels, c.width, c.blocks, c.down)
        self.target_discriminator = image_to_patches(size, shape.channels, c.patch_width, c.patch_down, c.slope)
        self.source_discriminator = image_to_patches(size, shape.channels, c.patch_width, c.patch_down, c.slope)
        self.target_pool, self.source_pool = Pool(c.pool, shape.chw), Pool(c.pool, shape.chw)
        self.apply(_initialise)

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """Both generators, then both discriminators."""
        c = self.config
        g = OptimiserConfig(lr=c.lr_generators, betas=(c.beta1, 0.999), decay=c.decay)
        d = OptimiserConfig(lr=c.lr_discriminators, betas=(c.beta1, 0.999), decay=c.decay)
        return (
            Phase("generators", ("to_target", "to_source"), self.generators_loss, g),
            Phase("discriminators", ("target_discriminator", "source_discriminator"), self.discriminators_loss, d),
        )

    def generators_loss(self, batch: Batch, context: Context) -> Losses:
        """Adversarial, cycle and identity losses of G and F."""
        x, y = self._domains(batch)
        # G goes over x and y at once, F over y and x: what it makes of the one is the translation, of the other the
        # identity; no image of a batch depends on another
        to_y, same_y = self.to_target(torch.cat([x, y])).split(len(x))
        to_x, same_x = self.to_source(torch.cat([y, x])).split(len(y))
        fools = (self.target_discriminator(to_y) - 1).square().mean() + (
            self.source_discriminator(to_x) - 1
        ).square().mean()
        cycle = F.l1_loss(self.to_source(to_y), x) + F.l1_loss(self.to_target(to_x), y)
        identity = F.l1_loss(same_y, y) + F.l1_loss(same_x, x)
        total = fools + self.config.cycle * (cycle + self.config.identity * identity)
        return Losses(total, {"adversarial": fools, "cycle": cycle, "identity": identity})

    def discriminators_loss(self, batch: Batch, context: Context) -> Losses:
        """(E (D(real) - 1)^2 + E D(pooled)^2) / 2 of both discriminators."""
        x, y = self._domains(batch)
        with torch.no_grad():
            to_y, to_x = self.to_target(x), self.to_source(y)
        of_targets = discriminator_loss(
            self.target_discriminator(y), self.target_discriminator(self._pooled(self.target_pool, to_y, context))
        )
        of_sources = discriminator_loss(
            self.source_discriminator(x), self.source_discriminator(self._pooled(self.source_pool, to_x, context))
        )
        return Losses(of_targets + of_sources, {"of_targets": of_targets, "of_sources": of_sources})

    def _domains(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sources and targets of a batch in [-1, 1]."""
        assert batch.given is not None
        assert batch.given.images is not None
        return to_signed(batch.given.images, self.source.levels), to_signed(batch.images, self.shape.levels)

    def _pooled(self, pool: Pool, new: Tensor, context: Context) -> Tensor:
        return pool.exchange(new, context.uniform(len(new)), context.integers(self.config.pool, len(new)))

    # Images

    def translate(self, x: Tensor) -> Tensor:
        """G(x), rounded to levels."""
        return from_signed(self.to_target(to_signed(x, self.source.levels)), self.shape.levels)

    def back(self, y: Tensor) -> Tensor:
        """F(y), rounded to levels."""
        return from_signed(self.to_source(to_signed(y, self.shape.levels)), self.source.levels)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """The translations of the n images that are given; no noise goes in."""
        self.check_draw(None, draw)
        if given is None or given.images is None:
            raise UserError("cyclegan: expected images to translate, given.images, got none")
        if len(given.images) != n:
            raise UserError(f"cyclegan: expected {n} rows of given.images, got {len(given.images)}")
        return self.translate(given.images)

    @torch.no_grad()
    def pictures_of(self, requests: Requests, noise: Noise) -> tuple[Strip, ...]:
        """Sources, their translations, the way back, and the right answers where there are any."""
        assert requests.given.images is not None
        shown = requests.at(0, min(ROWS, len(requests)))
        assert shown.given.images is not None
        x = shown.given.images.to(noise.device)
        there = self.translate(x)
        columns = {"source": self._on_scale(x), "translated": there, "and back": self._on_scale(self.back(there))}
        caption = (
            "Images of the source domain, what they are translated to, and what comes back when that is translated in "
            "turn: the cycle that training closes, which leaves a picture its content."
        )
        if shown.answers is not None:
            columns["right answer"] = shown.answers.to(noise.device)
            caption += " The right answer is known, and was not seen in training."
        images = torch.stack(list(columns.values()), 1).cpu()
        return (Strip("There and back", caption, ("",) * len(x), tuple(columns), images),)

    def _on_scale(self, x: Tensor) -> Tensor:
        """Images of the source domain with the levels of the target's."""
        return from_signed(to_signed(x, self.source.levels), self.shape.levels)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """(E (D(y) - 1)^2 + E D(G(x))^2) / 2, 0-d, from D's numbers for all patches of real and generated images."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def _initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02) (section 7.1 of the paper); instance norm's gains stay 1, biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


MODEL = Model("CycleGAN", "Zhu et al. 2017, arXiv:1703.10593", Config, CycleGan, task="translation")
