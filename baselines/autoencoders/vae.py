"""Variational auto-encoder with a discrete pixel likelihood (Kingma and Welling 2014, arXiv:1312.6114).

The bound is log P(x) >= E_q[log P(x|z)] - KL(q(z|x) || N(0, I)) (their eq. 3) and, with k samples of z, the tighter
log P(x) >= E[log 1/k sum_i P(x|z_i) p(z_i) / q(z_i|x)] (Burda et al. 2016, arXiv:1509.00519, eq. 8).
In place of N(0, I) the prior may be a mixture of Gaussians that is learned with the rest; its KL has no closed form and
is taken at the sample of z that the first term has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.autoencoders import pictures
from baselines.autoencoders.code_priors import CodePriorName, code_prior, log_standard_normal
from baselines.autoencoders.priors import Gaussian
from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLatent,
    HasLikelihood,
    HasPrior,
    Illustrates,
    ImageShape,
    Losses,
    Model,
    Nats,
    Noise,
    OptimiserConfig,
    Phase,
    Reconstructs,
    Strip,
    Training,
    Trains,
)
from baselines.data.likelihood import discretised_logistic, from_signed, to_signed
from baselines.errors import UserError
from baselines.nets.resnet import image_to_vector, vector_to_image
from baselines.types import Kind

IMPORTANCE_SAMPLES = 64  # k of `iwae_k64`
FEW_LEVELS = 32  # up to here a pixel has a probability of its own for each level

Head = Literal["bernoulli", "categorical", "logistic"]


@dataclass(frozen=True)
class Config:
    """Sizes and learning rate; the defaults are tuned for 8x8 digits."""

    latent: int = 16  # dimensions of z
    prior: CodePriorName = "normal"  # mixture: of Gaussians, learned
    components: int = 50  # Gaussians of the mixture
    likelihood: Literal["auto", "bernoulli", "categorical", "logistic"] = "auto"  # auto: by the number of levels
    width: int = 32  # channels next to the image; they double with every halving
    widest: int = 128  # the most channels of any layer
    blocks: int = 1  # residual blocks at each size
    dropout: float = 0.1
    beta: float = 1.0  # weight of the KL in training; the reported bounds always weigh it 1
    lr: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.02  # fraction of the budget
    decay: str = "cosine"
    training: Training = Training(batch_size=64, ema_decay=0.998)

    def __post_init__(self) -> None:
        if min(self.latent, self.components, self.width, self.widest) < 1 or self.blocks < 0:
            raise UserError(
                "vae: expected latent, components, width and widest of at least 1 and blocks of at least 0, got "
                f"{self.latent}, {self.components}, {self.width}, {self.widest} and {self.blocks}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"vae: expected a dropout in [0, 1), got {self.dropout}")
        if self.beta < 0:
            raise UserError(f"vae.beta: expected at least 0, got {self.beta}")


class Vae(GenerativeModel, Trains, HasLikelihood, HasLatent, HasPrior, Reconstructs, Illustrates):
    """Encoder of q(z|x) = N(mean, diag(std^2)), decoder of the parameters of P(x|z), and a prior p(z)."""

    samplers: ClassVar[tuple[str, ...]] = ("native", "mean")
    averaged: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "code_prior")
    network: ClassVar[str | None] = "decoder"
    likelihoods: ClassVar[Mapping[str, Kind]] = {
        "elbo": "upper_bound",
        f"iwae_k{IMPORTANCE_SAMPLES}": "upper_bound",
    }
    selection: ClassVar[str | None] = "elbo"

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.head = head_for(shape.levels, config.likelihood)
        size, maps = (
            (shape.height, shape.width),
            shape.channels * parameters_per_pixel(self.head, shape.levels),
        )
        sizes = (config.width, config.widest, config.blocks, config.dropout)
        self.encoder = image_to_vector(size, shape.channels, 2 * config.latent, *sizes)
        self.decoder = vector_to_image(size, config.latent, maps, *sizes)
        self.code_prior = code_prior(config.prior, config.latent, config.components)
        self.latent = self.code_prior.numbers

    # The model's three distributions

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (B, latent) each of q(z|x), of uint8 x."""
        mean, log_std = self.encoder(to_signed(x, self.shape.levels).to(self._dtype)).chunk(2, 1)
        return mean, log_std.clamp(-7, 3)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log P(x|z) in nats (B,) of uint8 x (B, C, H, W) and z (B, latent)."""
        return log_prob(self.head, x, self._pixels(z), self.shape.levels).flatten(1).sum(1)

    def _pixels(self, z: Tensor) -> Tensor:
        """The parameters of each pixel's distribution, (B, P, C, H, W)."""
        pixels: Tensor = self.decoder(z.to(self._dtype))
        return pixels.view(len(z), -1, *self.shape.chw)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.decoder.parameters()).dtype

    # Training and likelihood

    def phases(self) -> tuple[Phase, ...]:
        """One: the negative ELBO, its KL weighted by beta."""
        c = self.config
        name = "adamw" if c.weight_decay else "adam"
        optimiser = OptimiserConfig(name, c.lr, weight_decay=c.weight_decay, warmup=c.warmup, decay=c.decay)
        return (Phase("elbo", ("encoder", "decoder", "code_prior"), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """Negative ELBO in nats per dimension; parts in nats per image."""
        mean, log_std = self.posterior(batch.images)
        z = mean + log_std.exp() * context.normal(*mean.shape)
        reconstruction = -self.log_likelihood(batch.images, z).mean()
        kl = self.code_prior.divergence(mean, log_std, z).mean()
        total = (reconstruction + self.config.beta * kl) / self.shape.dims
        return Losses(total, {"reconstruction": reconstruction, "kl": kl})

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """`elbo`: one sample of z, the KL in closed form where it has one; `iwae_k64`: 64 samples, no parts."""
        if name == "elbo":
            return self.elbo(x, noise)
        return Nats(-self.importance_bound(x, IMPORTANCE_SAMPLES, noise))

    def elbo(self, x: Tensor, noise: Noise) -> Nats:
        """-ELBO (B,), one sample of z."""
        mean, log_std = self.posterior(x)
        z = mean + log_std.exp() * noise.normal("posterior", len(x), tuple(mean.shape[1:]))
        reconstruction, kl = -self.log_likelihood(x, z), self.code_prior.divergence(mean, log_std, z)
        return Nats(reconstruction + kl, {"reconstruction": reconstruction, "kl": kl})

    def importance_bound(self, x: Tensor, samples: int, noise: Noise) -> Tensor:
        """log 1/k sum_i P(x|z_i) p(z_i) / q(z_i|x) in nats (B,), of k = `samples` draws of z."""
        mean, log_std = self.posterior(x)
        eps = noise.normal("posterior", len(x), (samples, *mean.shape[1:]))
        log_weights = []
        for e in eps.unbind(1):  # one at a time: memory does not grow with k
            z = mean + log_std.exp() * e
            log_ratio = self.code_prior.log_density(z) - log_standard_normal(e) + log_std.sum(1)  # log p(z) / q(z|x)
            log_weights.append(self.log_likelihood(x, z) + log_ratio)
        return torch.logsumexp(torch.stack(log_weights), 0) - math.log(samples)

    # Images

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """z ~ p(z), then each pixel from P(x|z): `native`; the expectation of P(x|z) of the same z instead: `mean`.

        The expectations are what papers often show. They are smoother than samples, and no samples of this model: its
        likelihoods are not theirs.
        """
        self.check_draw(self.config, draw)
        pixels = self._pixels(self.prior(n, noise))
        if draw.sampler == "mean":
            return expectation(self.head, pixels, self.shape.levels)
        return draw_pixels(self.head, pixels, noise.uniform("pixels", n, self.shape.chw), self.shape.levels)

    def decode(self, z: Tensor) -> Tensor:
        """The expectation of P(x|z) of the code that z makes, (B, C, H, W) in [-1, 1].

        It is not rounded; of a logistic it is its location, clamped. Of a mixture z has one number more than the code:
        it decides the component.
        """
        level = expected_level(self.head, self._pixels(self.code_prior.draw(z)), self.shape.levels)
        return (level * (2 / (self.shape.levels - 1)) - 1).clamp(-1, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The expectation of P(x|z) at the mean of q(z|x), rounded."""
        return self._expected(self.posterior(x)[0])

    def _expected(self, z: Tensor) -> Tensor:
        """The expectation of P(x|z), rounded, uint8 (B, C, H, W)."""
        return expectation(self.head, self._pixels(z), self.shape.levels)

    # Codes

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z|x), (B, dimensions of z)."""
        return self.posterior(x)[0]

    def draw_codes(self, x: Tensor, noise: Noise) -> Tensor:
        """z ~ q(z|x), (B, dimensions of z): over all images these should be distributed as the prior."""
        mean, log_std = self.posterior(x)
        return mean + log_std.exp() * noise.normal("posterior", len(x), tuple(mean.shape[1:]))

    def prior(self, n: int, noise: Noise) -> Tensor:
        """z ~ p(z), (n, dimensions of z)."""
        return self.code_prior.draw(noise.normal("z", n, (self.latent,)))

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Reconstructions, walks between test images, and the map of a 2-D latent or walks between draws."""
        codes, chart = self.encode(real), Gaussian(self.config.latent).chart()
        if chart is None or self.config.prior != "normal":
            last = pictures.between_draws(self.latent, lambda z: self._expected(self.code_prior.draw(z)), noise)
        else:
            last = pictures.charted(chart._replace(points=chart.points.to(real.device)), self._expected)
        shown = pictures.reconstructions(real, self.reconstruct(real))
        return shown, pictures.between_images(real, codes, self._expected), last


# The pixel's distribution given z; its parameters are pixels (B, P, C, H, W)


def head_for(levels: int, wanted: str) -> Head:
    """The kind of pixel distribution for this many levels, or the one wanted.

    Raises:
        UserError: if a Bernoulli is wanted of pixels that have more than two levels.
    """
    if wanted == "bernoulli" and levels != 2:
        raise UserError(f"vae.likelihood: bernoulli expects 2 levels, got {levels}; use categorical or logistic")
    if wanted == "auto":
        return "bernoulli" if levels == 2 else "categorical" if levels <= FEW_LEVELS else "logistic"
    assert wanted in ("bernoulli", "categorical", "logistic")
    return wanted  # type: ignore[return-value]


def parameters_per_pixel(head: Head, levels: int) -> int:
    """P: a logit; a logit for each level; or mean and log-scale."""
    return {"bernoulli": 1, "categorical": levels, "logistic": 2}[head]


def log_prob(head: Head, x: Tensor, pixels: Tensor, levels: int) -> Tensor:
    """log P of each pixel (B, C, H, W) of uint8 x."""
    if head == "bernoulli":
        return -F.binary_cross_entropy_with_logits(pixels[:, 0], x.to(pixels.dtype), reduction="none")
    if head == "categorical":
        return -F.cross_entropy(pixels, x.long(), reduction="none")
    return discretised_logistic(x, *_logistic(pixels), levels)


def draw_pixels(head: Head, pixels: Tensor, u: Tensor, levels: int) -> Tensor:
    """uint8 (B, C, H, W) by inversion of each pixel's distribution function at u in [0, 1)."""
    if head == "bernoulli":
        return (u < torch.sigmoid(pixels[:, 0])).to(torch.uint8)
    if head == "categorical":
        below = pixels.softmax(1).cumsum(1)[:, :-1]  # P(level <= 0), ..., P(level <= levels - 2)
        return (u[:, None] >= below).sum(1).to(torch.uint8)
    mean, log_scale = _logistic(pixels)
    return from_signed(mean + log_scale.exp() * torch.logit(u, eps=1e-6), levels)


def expectation(head: Head, pixels: Tensor, levels: int) -> Tensor:
    """The mean level of each pixel (of a logistic: its location), rounded, uint8 (B, C, H, W)."""
    return expected_level(head, pixels, levels).round().clamp(0, levels - 1).to(torch.uint8)


def expected_level(head: Head, pixels: Tensor, levels: int) -> Tensor:
    """The same before rounding, (B, C, H, W); a location may lie outside 0 .. levels - 1."""
    if head == "bernoulli":
        return torch.sigmoid(pixels[:, 0])
    if head == "categorical":
        level = torch.arange(levels, device=pixels.device, dtype=pixels.dtype).view(-1, 1, 1, 1)
        return (pixels.softmax(1) * level).sum(1)
    return (_logistic(pixels)[0] + 1) * ((levels - 1) / 2)


def _logistic(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-scale; below -7 and above 5 a scale says no more, at the price of numbers that overflow."""
    return pixels[:, 0], pixels[:, 1].clamp(-7, 5)


MODEL = Model("VAE", "Kingma and Welling 2014, arXiv:1312.6114", Config, Vae)
