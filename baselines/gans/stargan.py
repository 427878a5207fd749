"""StarGAN: one generator translates between all domains (Choi et al. 2018, arXiv:1711.09020).

The generator sees an image and the attributes that it is to get, each value a map of ones or zeros (section 3.1); the
discriminator tells real from translated images (D_src) and which values an image has (D_cls). It learns D_cls on real
images (eq. 2), the generator is held to it on translated ones (eq. 3), and must bring an image back when it is asked
for the values that it had (eq. 4). D_src is a Wasserstein critic with gradient penalty (eq. 8). Translations are
deterministic: there is no noise.

For small images: none of the two halvings, fewer channels and residual blocks, 5x5 in place of 7x7 convolutions at both
ends of the generator, a discriminator down to 2x2, larger learning rates over a shorter training, one update of D for
each of G where the paper has five, and the generator's moving average draws. Of the first convolution the image's share
alone has instance norm: the norm would subtract the maps again, which are constant, everywhere but at the border. Every
attribute here has exclusive values, so D_cls has a softmax for each, as the paper's has for facial expressions. The
losses are the paper's.

The generator sees images whose colours are amplified (`colour`), a fixed invertible map. Whether ink is lighter or
darker than the ground hangs on the ground, and without it trainings settled on a map of lightness alone: either to
invert always or never, so that digits come out as their complements, within a box, where the ground stays or where it
changes. Attribute accuracy does not see it (the judge's head for the digit does), and although the critic rates the
truth higher, neither more of its updates nor weaker cycles led out. Colour tells ink from both grounds alike, but
varies less than lightness, which is why it is amplified. The factor is this data's: inks are colours here, and grounds
are not.
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
    TranslatesDomains,
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.errors import UserError
from baselines.gans.losses import slope_penalty
from baselines.nets.conv import Size, double, halve, halvings

_ROWS = 8  # requests that are shown


@dataclass(frozen=True)
class Config:
    """Sizes, weights of the losses and learning rates; the defaults are tuned for domains of 16x16 digits."""

    width: int = 16  # channels of the generator next to the image; they double with every halving
    kernel: int = 5  # of the generator's first and last convolution, odd
    halvings: int = 0  # of the image in the generator; digits are kept worse with one
    colour: float = 10.0  # times that a pixel's channels lie off their mean for the generator; 1 leaves images alone
    blocks: int = 3  # residual blocks at the smallest size
    critic_width: int = 32  # channels after the discriminator's first halving; they double with every further one
    slope: float = 0.01  # of LeakyReLU in D
    lambda_cls: float = 1.0
    lambda_rec: float = 10.0
    lambda_gp: float = 10.0
    critic_steps: int = 1  # n_critic: updates of D for each of G, each on a fresh batch
    lr_generator: float = 1e-3
    lr_discriminator: float = 2e-3
    beta1: float = 0.5  # of Adam
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=8, ema_decay=0.99)

    def __post_init__(self) -> None:
        for name, least in {"width": 1, "halvings": 0, "blocks": 0, "critic_width": 1, "critic_steps": 1}.items():
            if getattr(self, name) < least:
                raise UserError(f"stargan.{name}: expected at least {least}, got {getattr(self, name)}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UserError(f"stargan.kernel: expected an odd number from 1 on, got {self.kernel}")
        if not 0 < self.colour < float("inf"):
            raise UserError(f"stargan.colour: expected a finite factor above 0, got {self.colour}")
        for name in ("lambda_cls", "lambda_rec", "lambda_gp"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"stargan.{name}: expected a finite weight, 0 or more, got {getattr(self, name)}")


class StarGan(GenerativeModel, Trains, TranslatesDomains, IllustratesRequests):
    """A generator of images (B, C, H, W) in [-1, 1] from such images and target values, and its discriminator."""

    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    network: ClassVar[str | None] = "generator"

    def __init__(self, shape: ImageShape, config: Config, conditions: Conditions) -> None:
        super().__init__()
        if not conditions.attributes or conditions.source != shape:
            raise UserError(
                f"stargan: expected attributes, and source images {tuple(shape)}, got "
                f"{', '.join(conditions.attributes) or 'no attributes'} and {conditions.source}; take domain data"
            )
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.attributes = dict(conditions.attributes)
        self.choices = conditions.choices
        self.generator = Generator(shape, config, sum(self.choices))
        self.discriminator = Discriminator(shape, config, sum(self.choices))

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator n_critic times, then generator."""
        betas = (self.config.beta1, 0.999)
        d = OptimiserConfig(lr=self.config.lr_discriminator, betas=betas, decay=self.config.decay)
        g = OptimiserConfig(lr=self.config.lr_generator, betas=betas, decay=self.config.decay)
        critic = Phase("discriminator", ("discriminator",), self.discriminator_loss, d, repeat=self.config.critic_steps)
        return critic, Phase("generator", ("generator",), self.generator_loss, g)

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """-L_adv + lambda_cls L_cls^r (eq. 5), L_adv as in eq. 8; L_cls^r of real images' own values (eq. 2)."""
        real, original = self._real(batch)
        with torch.no_grad():
            fake = self.generator(real, self._maps(self._targets(len(real), context)))
        critic, values = self.discriminator(real)
        distance = critic.mean() - self.discriminator(fake)[0].mean()
        told = attribute_loss(values, original, self.choices)
        weight = context.uniform(len(real), 1, 1, 1)
        penalty = slope_penalty(lambda x: self.discriminator(x)[0], torch.lerp(real, fake, weight))
        total = self.config.lambda_gp * penalty - distance + self.config.lambda_cls * told
        return Losses(total, {"distance": distance, "class": told, "penalty": penalty})

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """L_adv + lambda_cls L_cls^f + lambda_rec L_rec (eqs. 3, 4, 6); only the translated images' part of L_adv."""
        real, original = self._real(batch)
        target = self._targets(len(real), context)
        fake = self.generator(real, self._maps(target))
        critic, values = self.discriminator(fake)
        told = attribute_loss(values, target, self.choices)
        back = (self.generator(fake, self._maps(original)) - real).abs().mean()
        total = self.config.lambda_cls * told + self.config.lambda_rec * back - critic.mean()
        return Losses(total, {"critic": critic.mean(), "class": told, "reconstruction": back})

    def _real(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1], and the values that they have."""
        if batch.attributes is None:
            raise UserError("stargan: expected training images with attributes, got none; take domain data")
        return to_signed(batch.images, self.shape.levels), batch.attributes

    def _targets(self, n: int, context: Context) -> Tensor:
        """Values drawn anew, int64 (n, A)."""
        return torch.stack([context.integers(k, n) for k in self.choices], 1)

    def _maps(self, attributes: Tensor) -> Tensor:
        """int64 (B, A) to one-hot values (B, sum of choices), one attribute after another.

        Raises:
            UserError: if an attribute has no such value, or there is another number of attributes.
        """
        limits = torch.tensor(self.choices, device=attributes.device)
        if attributes.shape[1:] != limits.shape or bool(((attributes < 0) | (attributes >= limits)).any()):
            raise UserError(
                f"stargan: expected values below {self.choices} of {', '.join(self.attributes)}, "
                f"got {tuple(attributes.shape)} with values up to {attributes.amax(0).tolist()}"
            )
        parts = [F.one_hot(attributes[:, i], k) for i, k in enumerate(self.choices)]
        return torch.cat(parts, 1).to(next(self.generator.parameters()).dtype)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """The n given images with the given values: G(x, c), rounded to levels; noise is not looked at.

        Raises:
            UserError: if it is not given n source images with values.
        """
        self.check_draw(None, draw)
        if given is None or given.images is None or given.attributes is None:
            raise UserError("stargan: expected to be given source images and the attributes they are to get")
        if len(given) != n:
            raise UserError(f"stargan: expected {n} rows of what is given, got {len(given)}")
        return self.translate(given.images, given.attributes)

    def translate(self, images: Tensor, attributes: Tensor) -> Tensor:
        """G(x, c), rounded to levels."""
        moved: Tensor = self.generator(to_signed(images, self.shape.levels), self._maps(attributes))
        return from_signed(moved, self.shape.levels)

    @torch.no_grad()
    def pictures_of(self, requests: Requests, noise: Noise) -> tuple[Strip, ...]:
        """The first requests' source images, and each of them with every value of every attribute, one at a time."""
        given = requests.at(0, min(_ROWS, len(requests))).given.to(noise.device)
        assert given.images is not None
        assert given.attributes is not None
        originals = requests.originals
        have = given.attributes if originals is None else originals[: len(given)].to(noise.device)
        columns, images = ["source"], [given.images]
        for i, (name, values) in enumerate(self.attributes.items()):
            for value, word in enumerate(values):
                wanted = have.clone()
                wanted[:, i] = value
                columns.append(f"{name}: {word}")
                images.append(self.translate(given.images, wanted))
        caption = (
            "Test images with one attribute set, the others as they are, by one generator. In the columns of the value "
            "that an image has, nothing should change; everywhere, the digit should stay."
        )
        table = torch.stack(images, 1).cpu()
        return (Strip("Every domain from one image", caption, ("",) * len(table), tuple(columns), table),)


class Generator(nn.Module):
    """Halvings, residual blocks and doublings with instance norm, on an image beside its target's maps."""

    def __init__(self, shape: ImageShape, config: Config, values: int) -> None:
        super().__init__()
        # A convolution of image and maps together is the sum of two; only the image's share is normed
        sizes, width, kernel, around = _sizes(shape, config.halvings), config.width, config.kernel, config.kernel // 2
        self.colour = config.colour
        first = nn.Conv2d(shape.channels, width, kernel, padding=around, bias=False)
        self.image = nn.Sequential(first, _normed(width)[0])
        self.target = nn.Conv2d(values, width, kernel, padding=around, bias=False)
        layers: list[nn.Module] = [nn.ReLU()]
        for size in sizes[:-1]:
            layers += [halve(width, 2 * width, size, bias=False), *_normed(2 * width)]
            width *= 2
        layers += [Residual(width) for _ in range(config.blocks)]
        for size in reversed(sizes[:-1]):
            layers += [double(width, width // 2, size, bias=False), *_normed(width // 2)]
            width //= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, shape.channels, kernel, padding=around), nn.Tanh())

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] and one-hot values (B, K) to (B, C, H, W) in (-1, 1)."""
        maps = target[:, :, None, None].expand(-1, -1, *images.shape[2:])
        found: Tensor = self.layers(self.image(coloured(images, self.colour)) + self.target(maps))
        return found


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.layers = nn.Sequential(first, *_normed(width), second, _normed(width)[0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same."""
        found: Tensor = x + self.layers(x)
        return found


class Discriminator(nn.Module):
    """Strided convolutions with LeakyReLU and no norm, and two heads: D_src on patches, D_cls on the whole."""

    def __init__(self, shape: ImageShape, config: Config, values: int) -> None:
        super().__init__()
        sizes = halvings((shape.height, shape.width), smallest=2)
        layers: list[nn.Module] = []
        channels, width = shape.channels, config.critic_width
        for size in sizes[:-1]:
            layers += [halve(channels, width, size), nn.LeakyReLU(config.slope)]
            channels, width = width, 2 * width
        self.trunk = nn.Sequential(*layers)
        self.source = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        self.values = nn.Conv2d(channels, values, sizes[-1], bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to D_src (B,), the mean of its patches, and the logits of D_cls (B, K)."""
        h = self.trunk(x)
        return self.source(h).mean((1, 2, 3)), self.values(h).flatten(1)


def coloured(images: Tensor, gain: float) -> Tensor:
    """Images (B, C, H, W), each channel `gain` times as far from the mean of its pixel's channels, which stays.

    So grey pixels stay as they are.
    """
    lightness = images.mean(1, keepdim=True)
    return lightness + gain * (images - lightness)


def attribute_loss(logits: Tensor, attributes: Tensor, choices: tuple[int, ...]) -> Tensor:
    """-E log D_cls(c | x), summed over the attributes: logits (B, sum of choices), values int64 (B, A); 0-d."""
    parts = torch.split(logits, [*choices], dim=1)
    return torch.stack([F.cross_entropy(part, attributes[:, i]) for i, part in enumerate(parts)]).sum()


def _sizes(shape: ImageShape, most: int) -> tuple[Size, ...]:
    """From the image down by `most` halvings, or as many as leave what instance norm can take the mean of."""
    sizes = halvings((shape.height, shape.width), smallest=1)
    return tuple(size for size in sizes[: most + 1] if size[0] * size[1] > 1)


def _normed(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(width, affine=True), nn.ReLU()


MODEL = Model("StarGAN", "Choi et al. 2018, arXiv:1711.09020", Config, StarGan, task="domain_translation")
