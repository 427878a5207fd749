"""The original GAN with its choice of objectives (Goodfellow et al. 2014, arXiv:1406.2661).

The value of the game is min_G max_D E log D(x) + E log(1 - D(G(z))) (their eq. 1). G plays it as it stands
(`minimax`), by the non-saturating -E log D(G(z)) of their section 3, or the game of classification errors
max_G min_D 1/2 E[1 - D(x)] + 1/2 E D(G(z)), whose value is (1 - TV(p, p_g)) / 2. By logits the classification error's
slope is D (1 - D) / 2 for both players: unlike log D it also leaves D no gradient where D is wrong and sure of it, and
on digits it ends there, with D = 1 on all images and hardly any variety in G.

As in the paper the perceptrons have rectifiers in G, and maxout (Goodfellow et al. 2013, arXiv:1302.4389) with dropout
in D. What differs: z is normal and not uniform; G ends in tanh; images are blurred by half a level, since real ones
have few levels; optimised by Adam and sampled from an average of G's weights, as the family's other members are. The
convolutional networks are DCGAN's generator and a discriminator without batch norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from baselines.contract import (
    Batch,
    Chart,
    Context,
    HasCharts,
    ImageShape,
    Line,
    Losses,
    Model,
    Noise,
    OptimiserConfig,
    Panel,
    Phase,
    Training,
)
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.in_one_dimension import moving_onto
from baselines.gans.latent_gan import LatentGan
from baselines.gans.losses import (
    OBJECTIVES,
    Objective,
    blurred,
    discriminator_objective,
    generator_objective,
    generator_slope,
)
from baselines.gans.networks import critic, generator

REJECTIONS = tuple(range(-4, 13))  # minus D's logit on generated images: from D = 0.98 to D = 6e-6
_BATCH = 64  # generated images behind the gradients of the chart


@dataclass(frozen=True)
class Config:
    """Objective, sizes and learning rates; the defaults are tuned for 8x8 digits."""

    objective: Objective = "non_saturating"
    network: Literal["perceptron", "convolutional"] = "perceptron"
    latent: int = 32  # dimensions of z
    hidden: int = 256  # units of each of the two hidden layers of either perceptron
    pieces: int = 2  # linear pieces of a maxout unit
    dropout: float = 0.3  # behind the hidden layers of a perceptron D
    width: int = 32  # of the convolutional networks: channels next to the image; they double with every halving
    widest: int = 256  # the most channels of any layer
    slope: float = 0.2  # of LeakyReLU in a convolutional D
    lr_generator: float = 5e-4
    lr_discriminator: float = 5e-4
    beta1: float = 0.0  # of Adam
    discriminator_steps: int = 1  # k of the paper's algorithm 1: updates of D for each of G
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=64, ema_decay=0.998, snapshots=20)

    def __post_init__(self) -> None:
        for name in ("latent", "hidden", "pieces", "width", "widest", "discriminator_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"gan.{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"gan.dropout: expected 0 (none) or more and below 1, got {self.dropout}")
        for name, known in (("objective", OBJECTIVES), ("network", ("perceptron", "convolutional"))):
            if getattr(self, name) not in known:
                raise UserError(f"gan.{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")


class Gan(LatentGan, HasCharts):
    """A generator of tanh images in [-1, 1] and a discriminator, playing by one of three objectives."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, config.latent, config.training)
        self.config: Config = config
        if config.network == "perceptron":
            self.generator = _generator(shape, config)
            self.discriminator = _discriminator(shape, config)
        else:
            self.generator = generator(shape, config.latent, config.width, config.widest, config.training.ema_decay)
            self.discriminator = critic(shape, config.width, config.widest, config.slope)

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, k times, then generator."""
        betas = (self.config.beta1, 0.999)
        d = OptimiserConfig(lr=self.config.lr_discriminator, betas=betas, decay=self.config.decay)
        g = OptimiserConfig(lr=self.config.lr_generator, betas=betas, decay=self.config.decay)
        steps = self.config.discriminator_steps
        return (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, d, repeat=steps),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(x) - E log(1 - D(G(z))), or 1/2 E[1 - D(x)] + 1/2 E D(G(z))."""
        levels = self.shape.levels
        with torch.no_grad():
            images = self.generator(context.normal(len(batch.images), self.config.latent))
        real = self.discriminator(blurred(to_signed(batch.images, levels), levels, context))
        fake = self.discriminator(blurred(images, levels, context))
        return discriminator_objective(self.config.objective, real, fake)

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """E log(1 - D(G(z))), -E log D(G(z)) or -1/2 E D(G(z))."""
        images = self.generator(context.normal(len(batch.images), self.config.latent))
        fake = self.discriminator(blurred(images, self.shape.levels, context))
        return generator_objective(self.config.objective, fake)

    def charts(self, real: Tensor, noise: Noise) -> tuple[Chart, ...]:
        """G's gradient before training under each objective; p_g on its way in one dimension, by this objective."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.seed)
            fresh = Gan(self.shape, self.config)
        return _gradient_chart(fresh, Noise(noise.seed)), moving_onto(self.config.objective, noise.seed)


def gradient_norms(model: Gan, objective: Objective, rejections: tuple[float, ...], noise: Noise) -> list[float]:
    """The norm of G's gradient, over its norm for a loss that is D's logit, by how surely D rejects.

    Args:
        model: with weights on the CPU; D's logits are shifted as a whole, and nothing is changed.
        objective: of G.
        rejections: minus the mean logit that D's answers to generated images are shifted to.
        noise: of the generated images.
    """
    model.eval()
    z = noise.normal("gradient", _BATCH, (model.latent,))
    parameters = list(model.generator.parameters())

    def norm(loss: Tensor) -> float:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))

    with torch.enable_grad():
        logits = model.discriminator(model.generator(z))
        unit, centred = norm(logits.mean()), logits - logits.mean().detach()
        return [norm(generator_objective(objective, centred - r).total) / unit for r in rejections]


def _gradient_chart(fresh: Gan, noise: Noise) -> Chart:
    lines = []
    for objective in OBJECTIVES:
        name = objective.replace("_", " ")
        closed = generator_slope(objective, -torch.tensor(REJECTIONS, dtype=torch.float64)).abs()
        measured = gradient_norms(fresh, objective, REJECTIONS, noise)
        x = tuple(float(r) for r in REJECTIONS)
        lines.append(Line(name, x, tuple(closed.tolist())))
        lines.append(Line(f"{name}, autograd", x, tuple(measured), marks=True))
    caption = (
        "How much of G's gradient is left before training, by how surely D rejects what G draws: 0 is D = 1/2, to the "
        "right D goes to 0 as it does when it learns faster than G. Lines are the closed forms D, 1 - D and "
        "D (1 - D) / 2, marks the norms of the gradient of all of G's weights by autograd, with D's logits shifted "
        "as a whole; both over the norm for a loss that is the logit itself. Minimax and the classification error "
        "saturate where G is worst; the non-saturating loss does not. D (1 - D) / 2 is also D's own "
        "slope of the classification error: a D that is wrong and sure learns no more, and can end at 1 on all images "
        "while G has hardly any variety."
    )
    return Chart(
        "G's gradient at the start",
        caption,
        "-logit of D on generated images",
        "norm of the gradient",
        (Panel("", tuple(lines)),),
        log_y=True,
    )


class Maxout(nn.Module):
    """The largest of several linear maps, unit by unit (Goodfellow et al. 2013, eqs. in section 2)."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.maps = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) to (B, units)."""
        pieces: Tensor = self.maps(x).unflatten(1, (-1, self.pieces))
        return pieces.amax(2)


def _generator(shape: ImageShape, config: Config) -> nn.Sequential:
    """z (B, latent) to images (B, C, H, W) in (-1, 1)."""
    return nn.Sequential(
        nn.Linear(config.latent, config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, shape.dims),
        nn.Tanh(),
        nn.Unflatten(1, shape.chw),
    )


def _discriminator(shape: ImageShape, config: Config) -> nn.Sequential:
    """Images (B, C, H, W) to logits (B,)."""
    return nn.Sequential(
        nn.Flatten(),
        Maxout(shape.dims, config.hidden, config.pieces),
        nn.Dropout(config.dropout),
        Maxout(config.hidden, config.hidden, config.pieces),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, 1),
        nn.Flatten(0),
    )


MODEL = Model("GAN", "Goodfellow et al. 2014, arXiv:1406.2661", Config, Gan)
