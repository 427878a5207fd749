"""GAN-CLS: images from captions, by a discriminator that tells whether image and caption match.

Reed et al. 2016 (arXiv:1605.05396), Algorithm 1: of {real image, right caption}, {real image, wrong caption} and
{generated image, right caption} only the first is 1. The text encoder learns as in the paper by telling which captions
belong to which images (eq. 2, after arXiv:1605.05395), never from the GAN's losses; it is given words, and neither
labels nor attributes.

Departures for small data. The encoder learns beside the GAN and not before it, by cross-entropy over a batch in place
of the hinge loss, and the images' encodings are a linear layer on D's convolutions, which so learn early what captions
speak of. G's first layer is told of the text by a normal draw whose divergence from N(0, 1) G's loss weighs (Zhang et
al. 2017, arXiv:1612.03242, eq. 2), and its last norm is told the text again: what the last layer can add, colours, the
first then leaves to it, and shapes are drawn in colours that they were never seen in. Both networks are a DCGAN's of
few channels, and D's layer behind image and text has no batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
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
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.errors import UserError
from baselines.gans.losses import blurred
from baselines.gans.norms import ToldNorm
from baselines.nets.captions import CaptionEncoder
from baselines.nets.conv import double, halve, halvings
from baselines.nets.slow_norm import SlowBatchNorm

SHOWN, EACH, PLACES = 8, 4, 9
"""In the pictures: captions, images of each, and places on the way from one caption to another."""


@dataclass(frozen=True)
class Config:
    """Sizes and learning rates; the defaults are tuned for 16x16 captioned digits."""

    latent: int = 32  # dimensions of z
    text: int = 64  # of phi(t), what the encoder makes of a caption
    text_hidden: int = 64  # of the encoder's layers
    compressed: int = 48  # N_t: dimensions to which G and D bring phi(t)
    width: int = 32  # channels next to the image; they double with every halving
    widest: int = 256  # the most channels of any layer
    slope: float = 0.2  # of LeakyReLU
    interpolation: float = 0.0  # weight of captions between two others in G's loss (GAN-INT, eq. 5)
    augmentation: float = 0.02  # weight of the nats that G's first layer is told of a caption
    matching: float = 1.0  # weight of the encoders' loss beside D's
    lr_generator: float = 2e-3
    lr_discriminator: float = 1e-3  # and of the text encoder
    beta1: float = 0.5  # of Adam, for G and D
    decay: str = "linear"  # of all learning rates over the budget
    training: Training = Training(batch_size=32, ema_decay=0.998)

    def __post_init__(self) -> None:
        for name in ("latent", "text", "text_hidden", "compressed", "width", "widest"):
            if getattr(self, name) < 1:
                raise UserError(f"text2image.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("interpolation", "augmentation"):
            if getattr(self, name) < 0:
                raise UserError(f"text2image.{name}: expected a weight of 0 or more, got {getattr(self, name)}")
        if self.matching <= 0:
            raise UserError(f"text2image.matching: expected a weight above 0, got {self.matching}")
        if self.training.batch_size < 2:
            raise UserError("text2image.training.batch_size: expected at least 2 (a wrong caption is another's), got 1")


class Text2Image(GenerativeModel, Trains, IllustratesRequests):
    """A text encoder, and a GAN of tanh images in [-1, 1] whose two networks are told what it makes of captions."""

    averaged: ClassVar[tuple[str, ...]] = ("encoder", "generator")
    coupled = "its wrong captions are those of other images of the batch"
    network: ClassVar[str | None] = "generator"

    def __init__(self, shape: ImageShape, config: Config, conditions: Conditions) -> None:
        super().__init__()
        if len(conditions.words) < 2:
            raise UserError("text2image: expected data with captions, got no vocabulary; take digits-captioned, say")
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.words = conditions.words
        self.latent = config.latent + config.compressed
        self.generator = Generator(shape, config)
        self.discriminator = Discriminator(shape, config)
        self.apply(_initialise)
        self.encoder = CaptionEncoder(len(conditions.words), config.text, config.text_hidden)

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator and text encoder, then generator."""
        betas, decay = (self.config.beta1, 0.999), self.config.decay
        d = OptimiserConfig(lr=self.config.lr_discriminator, betas=betas, decay=decay)
        g = OptimiserConfig(lr=self.config.lr_generator, betas=betas, decay=decay)
        return (
            Phase("discriminator", ("encoder", "discriminator"), self.discriminator_loss, d),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """Algorithm 1, lines 6 to 9, and the matching loss; a wrong caption is another image's of the batch."""
        tokens, levels = _tokens(batch.given), self.shape.levels
        learning = self.encoder(tokens)
        text = learning.detach()
        with torch.no_grad():
            fakes = self.generator(context.normal(len(text), self.latent), text)
        shift = 1 + int(context.integers(len(text) - 1))
        differs = (tokens.roll(shift, 0) != tokens).any(1)
        # Real and generated images go in apart, as a DCGAN's do; real ones once for all that is asked of them
        features = self.discriminator.look(blurred(to_signed(batch.images, levels), levels, context))
        right, wrong = (self.discriminator.judge(features, told) for told in (text, text.roll(shift, 0)))
        fake = self.discriminator(blurred(fakes, levels, context), text)
        losses = discriminator_loss(right, wrong, fake, differs)
        matched = matching_loss(learning, self.discriminator.encode(features))
        return Losses(losses.total + self.config.matching * matched.total, {**losses.parts, **matched.parts})

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(G(z, t), t), and by its weight the same of texts halfway between two captions (eq. 5)."""
        with torch.no_grad():
            text = self.encoder(_tokens(batch.given))
        right = self._deceived(text, context)
        told = divergence(*self.generator.conditions(text)).mean()
        total = right + self.config.augmentation * told
        if self.config.interpolation == 0:
            return Losses(total, {"right": right, "told_nats": told})
        between = self._deceived((text + text.roll(1 + int(context.integers(len(text) - 1)), 0)) / 2, context)
        parts = {"right": right, "between": between, "told_nats": told}
        return Losses(total + self.config.interpolation * between, parts)

    def _deceived(self, text: Tensor, context: Context) -> Tensor:
        images = self.generator(context.normal(len(text), self.latent), text)
        return F.softplus(-self.discriminator(blurred(images, self.shape.levels, context), text)).mean()

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """G(z, phi(t)) with batch norm's running statistics, rounded to levels.

        Raises:
            UserError: if there is not a caption for each image, or one has words that are not in the vocabulary.
        """
        self.check_draw(None, draw)
        tokens = _tokens(given)
        if len(tokens) != n:
            raise UserError(f"text2image: expected {n} rows of given tokens, one an image, got {len(tokens)}")
        if n and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(self.words):
            span = f"{int(tokens.min())} .. {int(tokens.max())}"
            raise UserError(f"text2image: expected given tokens of 0 .. {len(self.words) - 1}, got {span}")
        return self._images(noise.normal("z", n, (self.latent,)), self.encoder(tokens))

    def _images(self, z: Tensor, text: Tensor) -> Tensor:
        return from_signed(self.generator(z, text), self.shape.levels)

    @torch.no_grad()
    def pictures_of(self, requests: Requests, noise: Noise) -> tuple[Strip, ...]:
        """Several images of each caption, and walks from one caption to the next with z kept."""
        asked = requests.at(0, SHOWN)
        tokens = _tokens(asked.given).to(noise.device)
        text, names = self.encoder(tokens), [self._read(row) for row in tokens.tolist()]
        new = [False] * SHOWN if asked.unseen is None else asked.unseen.tolist()
        z = noise.normal("captions", SHOWN * EACH, (self.latent,))
        drawn = self._images(z, text.repeat_interleave(EACH, 0)).cpu()
        captions = Strip(
            "Images of captions",
            "The data's first test captions, each drawn from as many z as there are columns. Images of a row should "
            "show the same thing, each by another hand. A star marks a combination that no training image has.",
            tuple(f"{name} *" if star else name for name, star in zip(names, new, strict=True)),
            tuple(str(column + 1) for column in range(EACH)),
            drawn.view(SHOWN, EACH, *drawn.shape[1:]),
        )
        return captions, self._walks(text, names, noise)

    def _walks(self, text: Tensor, names: list[str], noise: Noise) -> Strip:
        """From caption 0 to 1, from 2 to 3, ... by the line between their encodings (section 4.3 of the paper)."""
        first, last = text[0::2], text[1::2]
        steps = [Fraction(place, PLACES - 1) for place in range(PLACES)]
        way = torch.stack([torch.lerp(first, last, float(step)) for step in steps], 1)
        z = noise.normal("walks", len(first), (self.latent,)).repeat_interleave(PLACES, 0)
        images = self._images(z, way.flatten(0, 1)).cpu()
        return Strip(
            "From one caption to another",
            "Images of texts on the line between the encodings of two captions, z kept along a row. The hand stays "
            "while what is said changes: style is z's part, content the text's.",
            tuple(f"{a} to {b}" for a, b in zip(names[0::2], names[1::2], strict=True)),
            tuple(str(step) for step in steps),
            images.view(len(first), PLACES, *images.shape[1:]),
        )

    def _read(self, tokens: list[int]) -> str:
        return " ".join(self.words[token] for token in tokens if token)


class Generator(nn.Module):
    """z (B, latent + compressed) and text (B, text) to images (B, C, H, W) in (-1, 1)."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        sizes, widths = _plan(shape, config)
        self.latent = config.latent
        self.condition = nn.Linear(config.text, 2 * config.compressed)
        self.compress = nn.Sequential(nn.Linear(config.text, config.compressed), nn.LeakyReLU(config.slope))
        slowest = min(1 - config.training.ema_decay, 0.1)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(config.latent + config.compressed, widths[-1], sizes[-1], bias=False)
        ]
        for stage in range(len(sizes) - 2, 0, -1):
            layers += [SlowBatchNorm(widths[stage + 1], slowest), nn.ReLU()]
            layers += [double(widths[stage + 1], widths[stage], sizes[stage], bias=False)]
        self.layers = nn.Sequential(*layers)
        self.told = ToldNorm(widths[1], config.compressed, slowest)
        self.last = double(widths[1], shape.channels, sizes[0])

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """The text is appended to z (section 4.1 of the paper), and told again before the last layer."""
        mean, log_std = self.conditions(text)
        noise, own = z[:, : self.latent], z[:, self.latent :]
        x = self.layers(torch.cat([noise, mean + log_std.exp() * own], 1)[:, :, None, None])
        return torch.tanh(self.last(F.relu(self.told(x, self.compress(text)))))

    def conditions(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, (B, compressed) each, of what is appended to z."""
        mean, log_std = self.condition(text).chunk(2, 1)
        return mean, log_std


class Discriminator(nn.Module):
    """Images (B, C, H, W) and text (B, text) to logits (B,) of being real and matching."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        sizes, widths = _plan(shape, config)
        layers: list[nn.Module] = []
        for stage in range(len(sizes) - 1):
            into = widths[stage] if stage else shape.channels
            layers += [halve(into, widths[stage + 1], sizes[stage], bias=stage == 0)]
            layers += [nn.BatchNorm2d(widths[stage + 1])] if stage else []
            layers += [nn.LeakyReLU(config.slope)]
        self.trunk = nn.Sequential(*layers)
        self.compress = nn.Sequential(nn.Linear(config.text, config.compressed), nn.LeakyReLU(config.slope))
        self.joint = nn.Conv2d(widths[-1] + config.compressed, widths[-1], 1)
        self.slope = config.slope
        self.last = nn.Conv2d(widths[-1], 1, sizes[-1])
        self.encoding = nn.Linear(widths[-1] * sizes[-1][0] * sizes[-1][1], config.text)

    def look(self, images: Tensor) -> Tensor:
        """What the convolutions see of images: (B, channels, h, w)."""
        features: Tensor = self.trunk(images)
        return features

    def judge(self, features: Tensor, text: Tensor) -> Tensor:
        """Logits of what `look` saw beside texts: repeated at each place, a 1x1 convolution (section 4.1)."""
        told = self.compress(text)[:, :, None, None].expand(-1, -1, *features.shape[2:])
        both = F.leaky_relu(self.joint(torch.cat([features, told], 1)), self.slope)
        logits: Tensor = self.last(both).flatten()
        return logits

    def encode(self, features: Tensor) -> Tensor:
        """What `look` saw as an encoding like a caption's, (B, text)."""
        encoded: Tensor = self.encoding(features.flatten(1))
        return encoded

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """`judge` of `look`."""
        return self.judge(self.look(images), text)


def discriminator_loss(right: Tensor, wrong: Tensor, fake: Tensor, differs: Tensor) -> Losses:
    """-E log s_r - (E log(1 - s_w) + E log(1 - s_f)) / 2 (Algorithm 1, line 9), from logits (B,).

    differs: (B,) bool, whether the wrong caption is another one than the right caption; the others do not count.
    """
    on_right, on_fake = F.softplus(-right).mean(), F.softplus(fake).mean()
    on_wrong = (F.softplus(wrong) * differs).sum() / differs.sum().clamp(min=1)
    parts = {"right": on_right, "wrong": on_wrong, "fake": on_fake}
    return Losses(on_right + (on_wrong + on_fake) / 2, parts)


def matching_loss(text: Tensor, images: Tensor) -> Losses:
    """Of encodings of captions and of their images, (B, size) each, row by row: each finds its own among the others."""
    scores = text @ images.T / text.shape[1] ** 0.5
    own = torch.arange(len(text), device=text.device)
    total = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    return Losses(total, {"matching": total, "found": (scores.argmax(1) == own).float().mean()})


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats, (B,), of mean and log standard deviation (B, size)."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)


def _tokens(given: Given | None) -> Tensor:
    if given is None or given.tokens is None:
        raise UserError("text2image: expected given tokens (n, L), the captions' words, got none")
    return given.tokens


def _plan(shape: ImageShape, config: Config) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Sizes from the image down to 4x4 or less, by three halvings at least; channels of each (the image's unused)."""
    sizes = halvings((shape.height, shape.width), smallest=4, fewest=3)
    widths = tuple(min(config.width * 2 ** max(stage - 1, 0), config.widest) for stage in range(len(sizes)))
    return sizes, widths


def _initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), batch norm's gains N(1, 0.02), as a DCGAN's (arXiv:1511.06434, section 4)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


MODEL = Model("Text2Image (GAN-CLS)", "Reed et al. 2016, arXiv:1605.05396", Config, Text2Image, task="text_to_image")
