"""Autoencoder with a deterministic bottleneck (Hinton and Salakhutdinov 2006, Science 313): a control.

It learns to reconstruct and nothing else: no prior has a say in where codes lie. What it draws comes from a Gaussian
that is fitted ex post to the codes of the train images (Ghosh et al. 2020, arXiv:1903.12436, section 4, with one
component), which shows how much of a generative autoencoder's quality the decoder alone brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.autoencoders.bottleneck import Bottleneck, PixelLoss
from baselines.autoencoders.priors import Chart, Gaussian
from baselines.contract import (
    Batch,
    Context,
    FitsExPost,
    ImageShape,
    Losses,
    Model,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
)
from baselines.errors import UserError

_TOGETHER = 500  # images whose codes are taken at a time


@dataclass(frozen=True)
class Config:
    """Sizes and learning rate; the defaults are tuned for 8x8 digits."""

    latent: int = 8  # dimensions of the code
    loss: PixelLoss = "mse"
    width: int = 32  # channels next to the image; they double with every halving
    widest: int = 128  # the most channels of any layer
    blocks: int = 1  # residual blocks at each size
    dropout: float = 0.0
    lr: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.02  # fraction of the budget
    decay: str = "cosine"
    training: Training = Training(batch_size=64, ema_decay=0.998)

    def __post_init__(self) -> None:
        if min(self.latent, self.width, self.widest) < 1 or self.blocks < 0:
            raise UserError(
                "ae: expected latent, width and widest of at least 1 and blocks of at least 0, got "
                f"{self.latent}, {self.width}, {self.widest} and {self.blocks}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"ae: expected a dropout in [0, 1), got {self.dropout}")


class Ae(Bottleneck, FitsExPost):
    """Encoder and decoder, and N(mean, factor factor^T), which codes are drawn from."""

    ex_post: ClassVar[str] = "not a generative model: codes are drawn from a Gaussian fitted ex post to train codes"

    mean: Tensor  # (latent,)
    factor: Tensor  # (latent, latent), columns in the order of their lengths

    def __init__(self, shape: ImageShape, config: Config) -> None:
        c = config
        super().__init__(shape, c.latent, c.loss, c.width, c.widest, c.blocks, c.dropout)
        self.config = config
        self.training_config = config.training
        self.latent = config.latent
        for layer in (self.encoder[-1], self.decoder[0]):  # no prior asks for large codes: they would begin near zero
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight)
        self.register_buffer("mean", torch.zeros(c.latent))
        self.register_buffer("factor", torch.eye(c.latent))

    def phases(self) -> tuple[Phase, ...]:
        """One: the reconstruction."""
        c = self.config
        name = "adamw" if c.weight_decay else "adam"
        optimiser = OptimiserConfig(name, c.lr, weight_decay=c.weight_decay, warmup=c.warmup, decay=c.decay)
        return (Phase("reconstruction", ("encoder", "decoder"), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """The error of the reconstruction, mean over pixels."""
        return Losses(self.reconstruction_error(batch.images))

    @torch.no_grad()
    def fit_ex_post(self, images: Tensor, noise: Noise) -> None:
        """Mean and covariance of the codes of the train images, by maximum likelihood; nothing here is random."""
        codes = torch.cat([self.encode(part) for part in torch.split(images, _TOGETHER)]).double()
        mean = codes.mean(0)
        centred = codes - mean
        values, axes = torch.linalg.eigh(centred.T @ centred / len(codes))  # a code may lie in fewer dimensions
        self.mean.copy_(mean)
        self.factor.copy_((axes * values.clamp(min=0).sqrt()).flip(1))

    def code(self, z: Tensor) -> Tensor:
        """mean + factor z, (B, latent): draws of the fitted Gaussian."""
        return self.mean + z @ self.factor.T

    def chart(self) -> Chart | None:
        """The fitted Gaussian's, where it has two dimensions."""
        chart = Gaussian(self.latent).chart()
        return None if chart is None else chart._replace(points=self.code(chart.points.to(self.mean)))


MODEL = Model("AE (control)", "Hinton and Salakhutdinov 2006; ex post: arXiv:1903.12436", Config, Ae)
