"""InfoGAN: a GAN whose images tell what their latent codes were (Chen et al. 2016, arXiv:1606.03657).

Beside noise z the generator takes a category and a few continuous codes c. A head Q on the discriminator's trunk infers
them, and min over G and Q, max over D of V(D, G) - lambda L_I(G, Q) is played (eq. 6), where
L_I = H(c) + E log Q(c|G(z, c)) bounds the mutual information of code and image from below (eq. 5). As in the authors'
code D's turn learns Q and the trunk on both terms, and in G's turn both reach G by gradient; V moves no weight of Q.

For small data lambda is 0.2 for the category and 0.03 for the continuous codes (1 and 0.1 in the paper): at once
readable codes divide images that do not look real yet, and keep to it. D and Q see all images a little turned, shifted
and zoomed (Zhao et al. 2020, arXiv:2006.10738), so that a category is what that does not change, and half a level of
noise hides the grid of levels. Weights and batch norm's statistics are averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract import (
    Batch,
    Codes,
    Context,
    Draw,
    GenerativeModel,
    Given,
    Illustrates,
    ImageShape,
    Inferred,
    InfersCodes,
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
from baselines.gans.losses import blurred
from baselines.nets.conv import double, halve, halvings
from baselines.nets.slow_norm import SlowBatchNorm

SHOWN = 10  # draws of the noise whose images are shown of each category
SWEEP = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # of a continuous code; its prior ends at -1 and 1
_LOG_STD = (-3.0, 1.0)  # of Q: below and above it says no more


@dataclass(frozen=True)
class Config:
    """Sizes, weights and learning rates; the defaults are tuned for 8x8 digits."""

    latent: int = 32  # dimensions of the noise z
    categories: int = 10  # K, values of the category
    continuous: int = 2  # codes uniform in [-1, 1]
    category_weight: float = 0.2  # lambda of the category's cross-entropy
    continuous_weight: float = 0.03  # lambda of the continuous codes' likelihood
    width: int = 32  # channels next to the image; they double with every halving
    widest: int = 256  # the most channels of any layer
    deformation: float = 1.0  # of what D and Q see; 1: up to 10 degrees, 6 % of the side, 8 % of the size
    hidden: int = 128  # units of the dense layers
    slope: float = 0.1  # of LeakyReLU in D
    lr_generator: float = 1e-3
    lr_discriminator: float = 1e-3
    beta1: float = 0.5  # of Adam
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=64, ema_decay=0.998)

    def __post_init__(self) -> None:
        for name in ("latent", "width", "widest", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"infogan.{name}: expected at least 1, got {getattr(self, name)}")
        if self.categories < 2:
            raise UserError(f"infogan.categories: expected at least 2, got {self.categories}")
        for name in ("continuous", "category_weight", "continuous_weight", "deformation"):
            if getattr(self, name) < 0:
                raise UserError(f"infogan.{name}: expected 0 or more, got {getattr(self, name)}")


class Infogan(GenerativeModel, Trains, InfersCodes, Illustrates):
    """A generator of tanh images from noise and codes; a trunk with two heads, `critic` for D and `inference` for Q."""

    averaged: ClassVar[tuple[str, ...]] = ("generator", "trunk", "inference")
    coupled = "batch norm takes the statistics of the whole batch"
    network: ClassVar[str | None] = "generator"

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.categories, self.continuous_codes = config.categories, config.continuous
        self.generator = generator(shape, config)
        self.trunk, features = trunk(shape, config)
        self.critic = nn.Sequential(nn.Linear(features, 1), nn.Flatten(0))
        self.inference = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.LeakyReLU(config.slope),
            nn.Linear(config.hidden, config.categories + 2 * config.continuous),
        )
        self.apply(_initialise)

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator with Q, then generator."""
        betas = (self.config.beta1, 0.999)
        d = OptimiserConfig(lr=self.config.lr_discriminator, betas=betas, decay=self.config.decay)
        g = OptimiserConfig(lr=self.config.lr_generator, betas=betas, decay=self.config.decay)
        return (
            Phase("discriminator", ("trunk", "critic", "inference"), self.discriminator_loss, d),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(x) - E log(1 - D(G(z, c))) - lambda E log Q(c|G(z, c))."""
        codes = self._codes(len(batch.images), context)
        with torch.no_grad():
            fake = self._seen(self._generate(codes, context), context)
        h = self.trunk(self._seen(to_signed(batch.images, self.shape.levels), context))
        h_fake = self.trunk(fake)
        game = F.softplus(-self.critic(h)).mean() + F.softplus(self.critic(h_fake)).mean()
        return self._with_information(game, h_fake, codes)

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(G(z, c)) - lambda E log Q(c|G(z, c))."""
        codes = self._codes(len(batch.images), context)
        h = self.trunk(self._seen(self._generate(codes, context), context))
        return self._with_information(F.softplus(-self.critic(h)).mean(), h, codes)

    def _with_information(self, game: Tensor, features: Tensor, codes: Codes) -> Losses:
        category, continuous = code_losses(codes, self._inferred(features))
        information = self.config.category_weight * category + self.config.continuous_weight * continuous
        return Losses(game + information, {"game": game, "category": category, "continuous": continuous})

    def _codes(self, n: int, context: Context) -> Codes:
        return Codes(context.integers(self.categories, n), 2 * context.uniform(n, self.continuous_codes) - 1)

    def _generate(self, codes: Codes, context: Context) -> Tensor:
        z = context.normal(len(codes.category), self.config.latent)
        images: Tensor = self.generator(self._joined(z, codes))
        return images

    def _seen(self, images: Tensor, context: Context) -> Tensor:
        """Images as D and Q see them: deformed and blurred."""
        return blurred(deformed(images, self.config.deformation, context), self.shape.levels, context)

    # Codes

    def _joined(self, z: Tensor, codes: Codes) -> Tensor:
        """Noise, the category as a one-hot row and the continuous codes, (B, latent + K + D)."""
        return torch.cat([z, F.one_hot(codes.category, self.categories).to(z), codes.continuous.to(z)], 1)

    def _inferred(self, features: Tensor) -> Inferred:
        sizes = [self.categories, self.continuous_codes, self.continuous_codes]
        logits, mean, log_std = self.inference(features).split(sizes, 1)
        return Inferred(logits.log_softmax(1), mean, log_std.clamp(*_LOG_STD))

    def draw_codes(self, n: int, noise: Noise) -> Codes:
        """A uniform category and uniform continuous codes for each image."""
        u = noise.uniform("category", n, (1,))[:, 0]
        category = (u * self.categories).long().clamp(max=self.categories - 1)
        return Codes(category, 2 * noise.uniform("continuous", n, (self.continuous_codes,)) - 1)

    def generate(self, codes: Codes, noise: Noise) -> Tensor:
        """G(z, c), rounded to levels; z is normal."""
        z = noise.normal("z", len(codes.category), (self.config.latent,))
        return from_signed(self.generator(self._joined(z, codes)), self.shape.levels)

    def infer(self, x: Tensor) -> Inferred:
        """Q(c|x) of uint8 images, with batch norm's running statistics in evaluation mode."""
        images = to_signed(x, self.shape.levels).to(next(self.parameters()).dtype)
        return self._inferred(self.trunk(images))

    # Sampling

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """G(z, c) with codes from their prior, rounded to levels."""
        self.check_draw(None, draw)
        return self.generate(self.draw_codes(n, noise), noise)

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Each category with the same draws of the noise; then each continuous code swept past its prior."""
        rows = tuple(f"category {k}" for k in range(self.categories))
        return (self._by_category(rows, noise), *(self._swept(i, rows, noise) for i in range(self.continuous_codes)))

    def _by_category(self, rows: tuple[str, ...], noise: Noise) -> Strip:
        drawn = self.draw_codes(SHOWN, noise).continuous
        category = torch.arange(self.categories, device=drawn.device)
        images = [self.generate(Codes(k.expand(SHOWN), drawn), noise) for k in category]
        found = [self.infer(x).log_probabilities.argmax(1) == k for x, k in zip(images, category, strict=True)]
        share = float(torch.cat(found).double().mean())
        caption = (
            "A row is a category, a column one draw of noise and continuous codes. A row of one kind of image tells of "
            f"a category that means something. Q reads the category right off {share:.0%} of these images."
        )
        return Strip("Categories", caption, rows, ("",) * SHOWN, torch.stack(images).cpu())

    def _swept(self, code: int, rows: tuple[str, ...], noise: Noise) -> Strip:
        z = noise.normal("z", 1, (self.config.latent,)).expand(len(SWEEP), -1)
        continuous = torch.zeros(len(SWEEP), self.continuous_codes, device=z.device)
        continuous[:, code] = torch.tensor(SWEEP, device=z.device)
        images = []
        for k in range(self.categories):
            category = torch.full((len(SWEEP),), k, device=z.device)
            images.append(from_signed(self.generator(self._joined(z, Codes(category, continuous))), self.shape.levels))
        caption = (
            "A row is a category, all with one draw of the noise and the other continuous codes at 0. In training the "
            "code lies between -1 and 1; what is beyond is extrapolated."
        )
        title = f"Continuous code {code + 1}"
        return Strip(title, caption, rows, tuple(f"{value:g}" for value in SWEEP), torch.stack(images).cpu())


def code_losses(codes: Codes, inferred: Inferred) -> tuple[Tensor, Tensor]:
    """-E log Q(c|x) in nats of the category (cross-entropy) and of the continuous codes in sum (Gaussian), 0-d each."""
    category = F.nll_loss(inferred.log_probabilities, codes.category)
    far = (codes.continuous - inferred.mean) * (-inferred.log_std).exp()
    continuous = 0.5 * far**2 + inferred.log_std + 0.5 * math.log(2 * math.pi)
    return category, continuous.sum(1).mean()


def deformed(images: Tensor, strength: float, context: Context) -> Tensor:
    """Each image (B, C, H, W) turned, shifted and zoomed at random."""
    if strength == 0:
        return images
    turn, zoom, right, down = (2 * context.uniform(4, len(images)) - 1) * strength
    angle, zoom = turn * math.radians(10), 1 + 0.08 * zoom
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos, -sin, 0.12 * right, sin, cos, 0.12 * down], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def generator(shape: ImageShape, config: Config) -> nn.Sequential:
    """(B, latent + K + D) to images (B, C, H, W) in (-1, 1): two dense layers, transposed convolutions, tanh."""
    sizes, widths = _plan(shape, config)
    into = config.latent + config.categories + config.continuous
    slowest = min(1 - config.training.ema_decay, 0.1)
    layers: list[nn.Module] = [nn.Linear(into, config.hidden, bias=False), nn.Unflatten(1, (config.hidden, 1, 1))]
    layers += [SlowBatchNorm(config.hidden, slowest), nn.ReLU()]
    layers += [nn.ConvTranspose2d(config.hidden, widths[-1], sizes[-1], bias=False)]
    for stage in range(len(sizes) - 2, -1, -1):
        layers += [SlowBatchNorm(widths[stage + 1], slowest), nn.ReLU()]
        out = widths[stage] if stage else shape.channels
        layers += [double(widths[stage + 1], out, sizes[stage], bias=stage == 0)]
    return nn.Sequential(*layers, nn.Tanh())


def trunk(shape: ImageShape, config: Config) -> tuple[nn.Sequential, int]:
    """Images (B, C, H, W) to features (B, F) that D and Q share, and F: strided convolutions, then a dense layer."""
    sizes, widths = _plan(shape, config)
    slowest = min(1 - config.training.ema_decay, 0.1)
    layers: list[nn.Module] = []
    for stage in range(len(sizes) - 1):
        into = widths[stage] if stage else shape.channels
        layers += [halve(into, widths[stage + 1], sizes[stage], bias=stage == 0)]
        if stage:
            layers += [SlowBatchNorm(widths[stage + 1], slowest)]
        layers += [nn.LeakyReLU(config.slope)]
    layers += [nn.Conv2d(widths[-1], config.hidden, sizes[-1], bias=False), SlowBatchNorm(config.hidden, slowest)]
    return nn.Sequential(*layers, nn.LeakyReLU(config.slope), nn.Flatten()), config.hidden


def _plan(shape: ImageShape, config: Config) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Sizes from the image down to 4x4 or less, by two halvings at least; channels of each (the image's unused)."""
    sizes = halvings((shape.height, shape.width), smallest=4, fewest=2)
    widths = tuple(min(config.width * 2 ** max(stage - 1, 0), config.widest) for stage in range(len(sizes)))
    return sizes, widths


def _initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), batch norm's gains N(1, 0.02), as the authors' code has them."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


MODEL = Model("InfoGAN", "Chen et al. 2016, arXiv:1606.03657", Config, Infogan)
