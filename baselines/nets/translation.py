"""Networks from image to image and from image to judgements of its patches (Johnson et al. 2016, arXiv:1603.08155).

As CycleGAN builds them (Zhu et al. 2017, arXiv:1703.10593, section 7.2): halvings, residual blocks and doublings with
instance norm, and a discriminator that judges patches (Isola et al. 2017, arXiv:1611.07004, section 3.2.2). Edges are
continued where the paper reflects them, since images may be smaller than a reflection.
"""

from __future__ import annotations

from torch import Tensor, nn

from baselines.nets.conv import Size, double, halve, halvings

KERNEL = 7  # of a generator's first and last convolution


class Block(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 convolutions."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        first, last = (
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate", bias=False) for _ in range(2)
        )
        self.inner = nn.Sequential(first, normed(channels, size), nn.ReLU(), last, normed(channels, size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *size) to the same."""
        inner: Tensor = self.inner(x)
        return x + inner


def normed(channels: int, size: Size) -> nn.Module:
    """Instance norm with gain and bias; nothing for maps of one pixel, of which it would leave nothing."""
    return nn.InstanceNorm2d(channels, affine=True) if size[0] * size[1] > 1 else nn.Identity()


def image_to_image(
    size: Size, channels_in: int, channels_out: int, width: int, blocks: int, down: int
) -> nn.Sequential:
    """Images (B, channels_in, *size) to (B, channels_out, *size) in (-1, 1).

    Args:
        size: of the images.
        channels_in: of the images that go in.
        channels_out: of those that come out.
        width: channels next to the image; they double with every halving.
        blocks: residual blocks at the coarsest size.
        down: halvings before the blocks, and doublings behind them; of an image of one pixel there are none.
    """
    sizes = halvings(size, smallest=max(size), fewest=down)
    widths = [width * 2**stage for stage in range(len(sizes))]
    layers: list[nn.Module] = [nn.Conv2d(channels_in, width, KERNEL, padding=KERNEL // 2, padding_mode="replicate")]
    layers += [normed(width, size), nn.ReLU()]
    for stage in range(len(sizes) - 1):
        layers += [halve(widths[stage], widths[stage + 1], sizes[stage], bias=False)]
        layers += [normed(widths[stage + 1], sizes[stage + 1]), nn.ReLU()]
    layers += [Block(widths[-1], sizes[-1]) for _ in range(blocks)]
    for stage in range(len(sizes) - 2, -1, -1):
        layers += [double(widths[stage + 1], widths[stage], sizes[stage], bias=False)]
        layers += [normed(widths[stage], sizes[stage]), nn.ReLU()]
    layers += [nn.Conv2d(width, channels_out, KERNEL, padding=KERNEL // 2, padding_mode="replicate"), nn.Tanh()]
    return nn.Sequential(*layers)


def image_to_patches(size: Size, channels_in: int, width: int, down: int, slope: float) -> nn.Sequential:
    """Images (B, channels_in, *size) to a real number for each of many overlapping patches, (B, 1, h, w).

    `down` halvings, a 3x3 convolution and a last one of 3x3: with one halving a patch has 12x12 pixels, with two 26x26.
    Every layer but the first and the last has instance norm.
    """
    sizes = halvings(size, smallest=max(size), fewest=down)
    layers: list[nn.Module] = []
    channels = channels_in
    for stage in range(len(sizes) - 1):
        out = width * 2**stage
        layers += [halve(channels, out, sizes[stage], bias=stage == 0)]
        layers += [normed(out, sizes[stage + 1])] if stage else []
        layers += [nn.LeakyReLU(slope)]
        channels = out
    layers += [nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), normed(2 * channels, sizes[-1])]
    return nn.Sequential(*layers, nn.LeakyReLU(slope), nn.Conv2d(2 * channels, 1, 3, padding=1))
