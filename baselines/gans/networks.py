"""The convolutional networks of the family: DCGAN's generator and discriminator (Radford et al. 2016), and critics.

Radford et al. 2016, arXiv:1511.06434. A critic has no batch norm: it has to judge each image by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from baselines.nets.conv import Size, double, halve, halvings
from baselines.nets.slow_norm import SlowBatchNorm
from baselines.types import ImageShape


def generator(shape: ImageShape, latent: int, width: int, widest: int, ema_decay: float) -> nn.Sequential:
    """z (B, latent) to images (B, C, H, W) in (-1, 1): transposed convolutions, batch norm, ReLU; tanh at the end.

    Args:
        shape: of the images.
        latent: dimensions of z.
        width: channels next to the image; they double with every halving.
        widest: the most channels of any layer.
        ema_decay: of the average that is sampled from, which batch norm's statistics follow.
    """
    sizes, widths = _plan(shape, width, widest)
    first = nn.ConvTranspose2d(latent, widths[-1], sizes[-1], bias=False)
    slowest = min(1 - ema_decay, 0.1)
    layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1)), first]
    for stage in range(len(sizes) - 2, -1, -1):
        layers += [SlowBatchNorm(widths[stage + 1], slowest), nn.ReLU()]
        out = widths[stage] if stage else shape.channels
        layers += [double(widths[stage + 1], out, sizes[stage], bias=stage == 0)]
    return nn.Sequential(*layers, nn.Tanh())


def discriminator(shape: ImageShape, width: int, widest: int, slope: float) -> nn.Sequential:
    """Images (B, C, H, W) to logits (B,): strided convolutions and LeakyReLU, batch norm after all but the first."""
    sizes, widths = _plan(shape, width, widest)
    layers: list[nn.Module] = []
    for stage in range(len(sizes) - 1):
        into = widths[stage] if stage else shape.channels
        layers += [halve(into, widths[stage + 1], sizes[stage], bias=stage == 0)]
        layers += [nn.BatchNorm2d(widths[stage + 1])] if stage else []
        layers += [nn.LeakyReLU(slope)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, sizes[-1]), nn.Flatten(0))


def critic(
    shape: ImageShape,
    width: int,
    widest: int,
    slope: float,
    wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer,
    between: bool = False,
) -> nn.Sequential:
    """Images (B, C, H, W) to values (B,): convolutions and LeakyReLU without batch norm, halved down to 4x4 or less.

    Args:
        shape: of the images.
        width: channels next to the image; they double with every halving.
        widest: the most channels of any layer.
        slope: of LeakyReLU.
        wrap: what is made of each layer with weights, such as spectral norm.
        between: whether a 3x3 convolution of stride 1 follows each that halves.
    """
    sizes = halvings((shape.height, shape.width), smallest=4)
    widths = [min(width * 2**stage, widest) for stage in range(len(sizes))]
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, widths[0], 3, padding=1)]
    for stage in range(len(sizes) - 1):
        layers += [halve(widths[stage], widths[stage + 1], sizes[stage])]
        layers += [nn.Conv2d(widths[stage + 1], widths[stage + 1], 3, padding=1)] if between else []
    last = nn.Linear(widths[-1] * sizes[-1][0] * sizes[-1][1], 1)
    for layer in (*layers, last):
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        nn.init.kaiming_normal_(layer.weight, a=slope)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    body = [part for layer in layers for part in (wrap(layer), nn.LeakyReLU(slope))]
    return nn.Sequential(*body, nn.Flatten(), wrap(last), nn.Flatten(0))


def initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), batch norm's gains N(1, 0.02) (section 4 of the DCGAN paper, and its code).

    A generator that begins so draws nearly the same grey image of every z. Against discriminators without batch norm,
    which never see a batch as a whole, SNGAN's collapsed onto one image: those here begin with torch's own weights.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _plan(shape: ImageShape, width: int, widest: int) -> tuple[tuple[Size, ...], tuple[int, ...]]:
    """Sizes from the image down to 4x4 or less, by three halvings at least; channels of each (the image's unused)."""
    sizes = halvings((shape.height, shape.width), smallest=4, fewest=3)
    widths = tuple(min(width * 2 ** max(stage - 1, 0), widest) for stage in range(len(sizes)))
    return sizes, widths
