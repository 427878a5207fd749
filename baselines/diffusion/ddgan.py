"""Denoising diffusion GAN: a few large denoising steps, each a conditional GAN (Xiao et al. 2021, arXiv:2112.07804).

Where a step is large, q(x_{t-1} | x_t) is no Gaussian any more. Here a generator G(x_t, z, t) answers with x_0, and
x_{t-1} is drawn from the posterior q(x_{t-1} | x_t, x_0) (their eq. 5); a discriminator D(x_{t-1}, x_t, t) tells such
pairs from those of the forward chain. The loss is the non-saturating one of Goodfellow et al. 2014 (arXiv:1406.2661)
with the R1 penalty of Mescheder et al. 2018 (arXiv:1801.04406) on x_{t-1}. Departures: at the step into the data D sees
both images with half a level of uniform noise, else the grid of levels alone would tell them apart; the penalty of a
skipped update is made up for by the next one (Karras et al. 2020, arXiv:1912.04958); small networks free of batch norm.
The chain of the default beta_max ends with a signal of weight 0.13, which the start of sampling, N(0, I), has not: on
digits L_T is 0.40 nats an image, where the paper's 20 leaves 0.001. Its steps are smaller for that.
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
    Context,
    Draw,
    GenerativeModel,
    Given,
    ImageShape,
    Losses,
    Model,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
    Trains,
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.diffusion.process import Process
from baselines.errors import UserError
from baselines.nets.conv import halve, halvings
from baselines.nets.unet import TIME_RANGE, UNet


@dataclass(frozen=True)
class Config:
    """Chain, networks and optimisers; the defaults are tuned for 8x8 digits."""

    timesteps: int = 4  # T; 1 is a plain GAN that is shown noise
    beta_min: float = 0.1  # of the variance-preserving diffusion over unit time (Song et al. 2021, arXiv:2011.13456)
    beta_max: float = 8.0  # the paper has 20, whose last step is larger: with T = 2 it collapsed on digits
    latent: int = 32  # dimensions of z
    widths: tuple[int, ...] = (16, 32)  # channels of each resolution of the generator's U-Net
    blocks: int = 1  # residual blocks at each, on the way down and on the way up
    attention: bool = False
    discriminator_width: int = 32  # channels next to the image; they double with every halving
    widest: int = 512  # the most channels of any layer of the discriminator
    slope: float = 0.2  # of LeakyReLU in D
    r1: float = 0.1  # weight of the penalty, gamma
    r1_every: int = 8  # updates of D from one penalty to the next
    lr_generator: float = 6e-3
    lr_discriminator: float = 2e-3
    beta1: float = 0.5  # of Adam
    decay: str = "cosine"  # of both learning rates over the budget
    training: Training = Training(batch_size=16, ema_decay=0.998)

    def __post_init__(self) -> None:
        if not 1 <= self.timesteps <= 100:
            raise UserError(f"ddgan.timesteps: expected 1 to 100 (the paper has 1 to 8), got {self.timesteps}")
        if not 0 < self.beta_min <= self.beta_max:
            raise UserError(f"ddgan: expected 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")
        for name in ("latent", "blocks", "discriminator_width", "widest", "r1_every"):
            if getattr(self, name) < 1:
                raise UserError(f"ddgan.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.widths or min(self.widths) < 2:
            raise UserError(f"ddgan.widths: expected one or more, each at least 2, got {self.widths}")
        if self.r1 < 0:
            raise UserError(f"ddgan.r1: expected 0 (none) or more, got {self.r1}")


class Ddgan(GenerativeModel, Trains):
    """A generator that undoes each of T steps at once, and the discriminator it learns from."""

    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    coupled = "its discriminator sees the deviation over the batch"
    network: ClassVar[str | None] = "generator"

    forward_weights: Tensor  # (T, 3): sqrt(abar_{t-1}), sqrt(1 - abar_{t-1}), beta_t
    posterior_weights: Tensor  # (T, 3): of x_0 and x_t in the posterior's mean, and its standard deviation

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.process = Process(vp_betas(config.timesteps, config.beta_min, config.beta_max))
        self.generator = Generator(shape, config)
        self.discriminator = Discriminator(shape, config)
        moves = [self.process.transition(t, t - 1) for t in range(config.timesteps)]
        forward = torch.tensor([(math.sqrt(m.abar_s), math.sqrt(m.noise_s), m.beta) for m in moves])
        backward = torch.tensor([(m.mean_x0, m.mean_xt, math.sqrt(m.beta_tilde)) for m in moves])
        self.register_buffer("forward_weights", forward, persistent=False)
        self.register_buffer("posterior_weights", backward, persistent=False)

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, then generator."""
        betas = (self.config.beta1, 0.999)
        d = OptimiserConfig(lr=self.config.lr_discriminator, betas=betas, decay=self.config.decay)
        g = OptimiserConfig(lr=self.config.lr_generator, betas=betas, decay=self.config.decay)
        return (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, d),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(x_{t-1}, x_t, t) - E log(1 - D(x'_{t-1}, x_t, t)), and the penalty where it is due (eq. 7)."""
        before, x_t, t = self.pair(batch, context)
        with torch.no_grad():
            generated = self.denoise(x_t, t, context)
        before = self._blur(before, t, context)
        due = self.config.r1 > 0 and context.step % self.config.r1_every == 0
        real = self.discriminator(before.requires_grad_(due), x_t, t)
        fake = self.discriminator(self._blur(generated, t, context), x_t, t)
        on_real, on_fake = F.softplus(-real).mean(), F.softplus(fake).mean()
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        parts = {"real": on_real, "fake": on_fake, "accuracy": accuracy}
        if not due:
            return Losses(on_real + on_fake, parts)
        (slope,) = torch.autograd.grad(real.sum(), before, create_graph=True)
        penalty = self.config.r1 / 2 * slope.square().flatten(1).sum(1).mean()
        return Losses(on_real + on_fake + self.config.r1_every * penalty, {**parts, "r1": penalty})

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """The non-saturating -E log D(x'_{t-1}, x_t, t) (eq. 8)."""
        _, x_t, t = self.pair(batch, context)
        generated = self._blur(self.denoise(x_t, t, context), t, context)
        return Losses(F.softplus(-self.discriminator(generated, x_t, t)).mean())

    def pair(self, batch: Batch, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """x_{t-1} ~ q(. | x_0), x_t ~ q(. | x_{t-1}) and t (B,) int64 in 0 .. T - 1, stratified; x_{-1} is the data."""
        x_0 = to_signed(batch.images, self.shape.levels)
        n, total = len(x_0), self.config.timesteps
        place = context.strata(n)
        t = (place * total).long().clamp(max=total - 1)
        signal, spread, beta = _rows(self.forward_weights, t)
        before = signal * x_0 + spread * context.normal(*x_0.shape)
        return before, (1 - beta).sqrt() * before + beta.sqrt() * context.normal(*x_0.shape), t

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """x'_{t-1} by the generator and the posterior, (B, C, H, W), from x_t and t (B,)."""
        x_0 = self.generator(x_t, self._time(t), context.normal(len(x_t), self.config.latent))
        return self.posterior(x_0, x_t, t, context.normal(*x_t.shape))

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7); x_0 itself where t = 0. t: (B,) or (1,)."""
        of_x0, of_xt, spread = _rows(self.posterior_weights, t)
        return of_x0 * x_0 + of_xt * x_t + spread * noise

    def _blur(self, images: Tensor, t: Tensor, context: Context) -> Tensor:
        """Half a level of uniform noise either way where the images are data."""
        noise = (2 * context.uniform(*images.shape) - 1) / (self.shape.levels - 1)
        return images + noise * (t == 0).view(-1, 1, 1, 1)

    def _time(self, t: Tensor) -> Tensor:
        return t * (TIME_RANGE / self.config.timesteps)

    # Images

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """From x_T ~ N(0, I) in T steps, a generator call each."""
        self.check_draw(self.config, draw)
        total = self.config.timesteps
        x = noise.normal("x_T", n, self.shape.chw)
        latents = noise.normals("z", n, (self.config.latent,), total)
        steps = noise.normals("steps", n, self.shape.chw, total)
        for t in reversed(range(total)):
            time = torch.tensor([t], device=x.device)
            x_0 = self.generator(x, self._time(time), next(latents))
            x = self.posterior(x_0, x, time, next(steps)) if t > 0 else x_0
        return from_signed(x, self.shape.levels)


def _rows(table: Tensor, t: Tensor) -> list[Tensor]:
    """The columns at times t (B,), each (B, 1, 1, 1)."""
    return [column.view(-1, 1, 1, 1) for column in table[t].unbind(1)]


def vp_betas(timesteps: int, beta_min: float, beta_max: float) -> Tensor:
    """The variances that T steps of the variance-preserving diffusion add, float64 (T,) (their app. B).

    beta_t = 1 - exp(-beta_min / T - (beta_max - beta_min) (2t - 1) / (2 T^2)), t = 1 .. T.
    """
    t = torch.arange(1, timesteps + 1, dtype=torch.float64)
    return -torch.expm1(-beta_min / timesteps - (beta_max - beta_min) * (2 * t - 1) / (2 * timesteps**2))


class Generator(nn.Module):
    """x_0 in (-1, 1) from x_t, times in 0 .. TIME_RANGE and z."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        channels = shape.channels
        self.unet = UNet(channels, channels, config.widths, config.blocks, config.attention, latent=config.latent)
        for layer in self.unet.modules():  # branches that begin at 0 would hide z from D at first
            if isinstance(layer, nn.Conv2d) and not layer.weight.any():
                layer.reset_parameters()

    def forward(self, x_t: Tensor, time: Tensor, z: Tensor) -> Tensor:
        """(B, C, H, W), (B,) or (1,), and (B, latent), to (B, C, H, W)."""
        return torch.tanh(self.unet(x_t, time, z))


class Discriminator(nn.Module):
    """Logits that x_{t-1} is of the forward chain, given x_t and t: strided convolutions that the time shifts."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        sizes = halvings((shape.height, shape.width), smallest=4, fewest=2)
        widths = [min(config.discriminator_width * 2**stage, config.widest) for stage in range(len(sizes))]
        self.stem = nn.Conv2d(2 * shape.channels, widths[0], 3, padding=1)
        self.layers = nn.ModuleList(halve(widths[i], widths[i + 1], sizes[i]) for i in range(len(sizes) - 1))
        self.shifts = nn.ModuleList(nn.Embedding(config.timesteps, width) for width in widths)
        for shift in self.shifts:
            assert isinstance(shift, nn.Embedding)
            nn.init.zeros_(shift.weight)
        self.mix = nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.head = nn.Linear(widths[-1] * sizes[-1][0] * sizes[-1][1], 1)
        self.slope = config.slope
        for layer in (self.stem, *self.layers, self.mix, self.head):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.kaiming_normal_(layer.weight, a=config.slope)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, before: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x_{t-1}, x_t (B, C, H, W) and t (B,) int64 in 0 .. T - 1 to logits (B,)."""
        h = torch.cat([before, x_t], 1)
        for layer, shift in zip((self.stem, *self.layers), self.shifts, strict=True):
            h = F.leaky_relu(layer(h) + shift(t)[:, :, None, None], self.slope)
        h = F.leaky_relu(self.mix(torch.cat([h, spread_of_batch(h)], 1)), self.slope)
        out: Tensor = self.head(h.flatten(1))
        return out.squeeze(1)


def spread_of_batch(h: Tensor) -> Tensor:
    """The mean standard deviation over the batch as one more map (Karras et al. 2018, arXiv:1710.10196, section 3)."""
    deviation = (h.var(0, correction=0) + 1e-8).sqrt().mean()
    return deviation.expand(len(h), 1, *h.shape[2:])


MODEL = Model("Denoising diffusion GAN", "Xiao et al. 2021, arXiv:2112.07804", Config, Ddgan)
