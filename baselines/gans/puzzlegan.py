"""PuzzleGAN: an image from key patches whose places are not told (Lee et al. 2017, arXiv:1703.10730).

One encoder, shared by all patches, makes a code of each, and the codes are summed: no order and no place goes in. From
the sum E a network draws the mask of where the patches lie, and another the image, from E, noise z and the first one's
feature maps. Three losses train them. The spatial loss is the L1 distance of the mask from the true one; the appearance
loss that of image times mask from the true image times its mask; the adversarial loss is DCGAN's (arXiv:1406.2661).
Real stands against the generated image and, as in the authors' code, against two mixtures of real images: another
image's part on this one's ground, and this one's part on another's ground. So the discriminator, which sees no patches,
asks whether ground and parts belong together.

For small images: patches are encoded at their own size and not blown up to the image's, so that there are no feature
maps of theirs to hand on; group norm stands for batch norm in what draws, so that an image does not hang on its batch;
and the mask's own pixels weigh more in the spatial loss, since plain L1 draws no mask where no place is certain.
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
    PlacesParts,
    Requests,
    Strip,
    Training,
    Trains,
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.errors import UserError
from baselines.gans.losses import blurred
from baselines.nets.conv import double, halve, halvings
from baselines.nets.resnet import image_to_vector, widths

_SHOWN, _DRAWS = 6, 5  # requests that pictures are made of, and draws of each


@dataclass(frozen=True)
class Config:
    """Sizes, weights of the losses and learning rates; the defaults are tuned for 16x16 digits."""

    code: int = 256  # dimensions of a patch's code, and of their sum E
    latent: int = 32  # dimensions of z
    width: int = 24  # channels next to the image; they double with every halving
    widest: int = 128  # the most channels of any layer
    dropout: float = 0.2  # in the encoder, and of E
    mask_weight: float = 50.0  # of the spatial loss, a mean over pixels
    inside_weight: float = 3.0  # of the mask's own pixels in it; the paper's 1 draws nothing where no place is certain
    appearance_weight: float = 50.0  # of the appearance loss, a mean over pixels
    slope: float = 0.2  # of LeakyReLU in D
    lr_generator: float = 3e-3
    lr_discriminator: float = 1.5e-3
    beta1: float = 0.5  # of Adam
    decay: str = "linear"  # of both learning rates over the budget
    training: Training = Training(batch_size=32, ema_decay=0.998)

    def __post_init__(self) -> None:
        for name in ("code", "latent", "width", "widest"):
            if getattr(self, name) < 1:
                raise UserError(f"puzzlegan.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("mask_weight", "appearance_weight"):
            if not getattr(self, name) >= 0:
                raise UserError(f"puzzlegan.{name}: expected a weight of 0 or more, got {getattr(self, name)}")
        if not self.inside_weight > 0:
            raise UserError(f"puzzlegan.inside_weight: expected a weight above 0, got {self.inside_weight}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"puzzlegan.dropout: expected one in [0, 1), got {self.dropout}")


class PuzzleGan(GenerativeModel, Trains, PlacesParts, IllustratesRequests):
    """A generator of masks and tanh images from patches, and the discriminator of whole images."""

    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    coupled = "its wrong pairs are an image and the patches of the batch's next one"
    network: ClassVar[str | None] = "generator"

    def __init__(self, shape: ImageShape, config: Config, conditions: Conditions) -> None:
        super().__init__()
        if conditions.patches is None:
            raise UserError("puzzlegan: expected a data set that gives key patches, got none; see digits-puzzle")
        self.shape, self.config, self.training_config = shape, config, config.training
        self.side = conditions.patches[1]
        self.generator = Generator(shape, self.side, config)
        self.discriminator = discriminator(shape, config)

    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, then encoder and both generators."""
        betas = (self.config.beta1, 0.999)
        d = OptimiserConfig(lr=self.config.lr_discriminator, betas=betas, decay=self.config.decay)
        g = OptimiserConfig(lr=self.config.lr_generator, betas=betas, decay=self.config.decay)
        return (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, d),
            Phase("generator", ("generator",), self.generator_loss, g),
        )

    def discriminator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(y), and -E log(1 - D) of each negative."""
        real, mask = self._truth(batch)
        with torch.no_grad():
            drawn, _ = self.generator(self._patches(batch.given), self._noise(len(real), context))
        terms = {"real": F.softplus(-self._judged(real, context)).mean()}
        for name, images in negatives(real, mask, drawn).items():
            terms[name] = F.softplus(self._judged(images, context)).mean()
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def generator_loss(self, batch: Batch, context: Context) -> Losses:
        """-E log D(G_I), the spatial and the appearance loss by their weights."""
        real, mask = self._truth(batch)
        image, placed = self.generator(self._patches(batch.given), self._noise(len(real), context))
        parts = {
            "adversarial": F.softplus(-self._judged(image, context)).mean(),
            "mask": spatial_loss(placed, mask, self.config.inside_weight),
            "appearance": appearance_loss(image, placed, real, mask),
        }
        weighted = self.config.mask_weight * parts["mask"] + self.config.appearance_weight * parts["appearance"]
        return Losses(parts["adversarial"] + weighted, parts)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """G_I rounded to levels; its patches have to be given."""
        if given is None:
            raise UserError("puzzlegan: expected patches to be given, got none; it draws no image without")
        return self.place(n, draw, noise, given)[0]

    @torch.no_grad()
    def place(self, n: int, draw: Draw, noise: Noise, given: Given) -> tuple[Tensor, Tensor]:
        """G_I rounded to levels, and G_M."""
        self.check_draw(None, draw)
        patches = self._patches(given)
        if len(patches) != n:
            raise UserError(f"puzzlegan: expected {n} rows of patches, got {len(patches)}")
        image, mask = self.generator(patches, noise.normal("z", n, (self.config.latent,)))
        return from_signed(image, self.shape.levels), mask

    @torch.no_grad()
    def pictures_of(self, requests: Requests, noise: Noise) -> tuple[Strip, ...]:
        """What is given, where it is put and what is drawn around it; and other draws around the same patches."""
        return _solved(self, requests.at(0, _SHOWN), noise), _other_draws(self, requests.at(0, _SHOWN), noise)

    def _truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [-1, 1], and masks (B, 1, H, W) of 0 and 1."""
        if batch.masks is None:
            raise UserError("puzzlegan: expected training images with masks of their patches, got none")
        return to_signed(batch.images, self.shape.levels), batch.masks.float()

    def _patches(self, given: Given | None) -> Tensor:
        """Patches (B, K, C, side, side) in [-1, 1]."""
        patches = None if given is None else given.patches
        wanted = (self.shape.channels, self.side, self.side)
        if patches is None or patches.ndim != 5 or tuple(patches.shape[2:]) != wanted:
            got = "none" if patches is None else str(tuple(patches.shape))
            raise UserError(
                f"puzzlegan: expected patches to be given as (B, K, {', '.join(map(str, wanted))}), got {got}"
            )
        return to_signed(patches, self.shape.levels)

    def _noise(self, n: int, context: Context) -> Tensor:
        return context.normal(n, self.config.latent)

    def _judged(self, images: Tensor, context: Context) -> Tensor:
        """D's logits (B,), with half a level of noise either way: the grid of levels would tell real from drawn."""
        logits: Tensor = self.discriminator(blurred(images, self.shape.levels, context))
        return logits


def negatives(real: Tensor, mask: Tensor, drawn: Tensor) -> dict[str, Tensor]:
    """What D is to refuse, (B, C, H, W) each; masks are of `real`, the other image is the one before in the batch."""
    other = real.roll(1, 0)
    return {
        "fake": drawn,
        "other_part": other * mask + real * (1 - mask),
        "other_ground": real * mask + other * (1 - mask),
    }


def spatial_loss(placed: Tensor, mask: Tensor, inside_weight: float = 1.0) -> Tensor:
    """Mean |G_M - M| over pixels, those inside of M weighted; both (B, 1, H, W) in [0, 1].

    With weight w the best mask of an uncertain place is 1 where its probability is above 1 / (1 + w).
    """
    return ((placed - mask).abs() * (1 + (inside_weight - 1) * mask)).mean()


def appearance_loss(image: Tensor, placed: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """Mean |G_I G_M - y M| over pixels; images (B, C, H, W) in [-1, 1], masks (B, 1, H, W) in [0, 1]."""
    return (image * placed - real * mask).abs().mean()


class Generator(nn.Module):
    """Patches and noise to an image and the mask of where the patches lie in it."""

    def __init__(self, shape: ImageShape, side: int, config: Config) -> None:
        super().__init__()
        size = (shape.height, shape.width)
        sizes = (config.width, config.widest)
        self.encoder = image_to_vector((side, side), shape.channels, config.code, *sizes, 1, config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.mask = Decoder(config.code, 1, size, *sizes)
        self.image = Decoder(config.code + config.latent, shape.channels, size, *sizes, beside=True)

    def embed(self, patches: Tensor) -> Tensor:
        """E (B, code), the sum of the codes of patches (B, K, C, side, side)."""
        codes: Tensor = self.encoder(patches.flatten(0, 1))
        return codes.view(*patches.shape[:2], -1).sum(1)

    def forward(self, patches: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in (-1, 1) and masks (B, 1, H, W) in (0, 1)."""
        code = self.dropout(self.embed(patches))
        mask, maps = self.mask(code)
        image, _ = self.image(torch.cat([code, z], 1), maps)
        return torch.tanh(image), torch.sigmoid(mask)


class Decoder(nn.Module):
    """A vector to a map of the image's size, and the feature maps on the way, by transposed convolutions.

    beside: whether it takes another decoder's feature maps, of the same sizes and widths, beside its own.
    """

    def __init__(
        self, into: int, out: int, size: tuple[int, int], width: int, widest: int, beside: bool = False
    ) -> None:
        super().__init__()
        sizes = halvings(size, smallest=4)
        channels = widths(sizes, width, widest)
        times = 2 if beside else 1
        flat = (channels[-1], *sizes[-1])
        first = nn.Sequential(nn.Linear(into, torch.Size(flat).numel()), nn.Unflatten(1, flat), *_rest(channels[-1]))
        stages = [first]
        for stage in range(len(sizes) - 2, -1, -1):
            up = double(times * channels[stage + 1], channels[stage], sizes[stage])
            stages.append(nn.Sequential(up, *_rest(channels[stage])))
        self.stages = nn.ModuleList(stages)
        self.last = nn.Conv2d(times * channels[0], out, 3, padding=1)

    def forward(self, code: Tensor, others: tuple[Tensor, ...] = ()) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Code (B, into) to maps (B, out, H, W), and the feature maps from the smallest to the largest."""
        maps: list[Tensor] = []
        h = code
        for i, stage in enumerate(self.stages):
            maps.append(stage(h))
            h = torch.cat([maps[-1], others[i]], 1) if others else maps[-1]
        return self.last(h), tuple(maps)


def _rest(channels: int) -> tuple[nn.Module, nn.Module]:
    """Group norm, in groups of some 8 channels, and ReLU."""
    groups = next(groups for groups in range(max(channels // 8, 1), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels), nn.ReLU()


def discriminator(shape: ImageShape, config: Config) -> nn.Sequential:
    """Images (B, C, H, W) to logits (B,): strided convolutions and LeakyReLU, batch norm after all but the first."""
    sizes = halvings((shape.height, shape.width), smallest=4, fewest=2)
    channels = widths(sizes, config.width, config.widest)
    layers: list[nn.Module] = []
    for stage in range(len(sizes) - 1):
        into, out = channels[stage - 1] if stage else shape.channels, channels[stage]
        layers += [halve(into, out, sizes[stage], bias=stage == 0)]
        layers += [nn.BatchNorm2d(out)] if stage else []
        layers += [nn.LeakyReLU(config.slope)]
    return nn.Sequential(*layers, nn.Conv2d(channels[len(sizes) - 2], 1, sizes[-1]), nn.Flatten(0))


# Pictures


def _solved(model: PuzzleGan, requests: Requests, noise: Noise) -> Strip:
    given = requests.given
    images, masks = model.place(len(given), Draw(), noise.fork("pictures"), given.to(noise.device))
    assert given.patches is not None
    shown = [_enlarged(patch, model.shape) for patch in given.patches.unbind(1)]
    names = [f"patch {k + 1}" for k in range(len(shown))]
    found = {"where it puts them": _as_image(masks, model.shape)}
    if requests.masks is not None:
        found["where they lay"] = _as_image(requests.masks.float(), model.shape)
    found["its image"] = images
    if requests.answers is not None:
        found["the true image"] = requests.answers
    columns = torch.stack([column.cpu() for column in (*shown, *found.values())], 1)
    caption = (
        "Patches are given in no order and without their places. Where the mask agrees with the true one, patches were "
        "put where they came from; the ground around them is made up, and need not be the true image's."
    )
    return Strip("Patches, their places and the image", caption, ("",) * len(given), (*names, *found), columns)


def _other_draws(model: PuzzleGan, requests: Requests, noise: Noise) -> Strip:
    given = requests.given.to(noise.device)
    draws = [model.place(len(given), Draw(), noise.fork(f"draw {i}"), given)[0].cpu() for i in range(_DRAWS)]
    caption = "Images around the same patches with other noise. Where all are alike, the patches alone decide."
    columns = tuple(f"noise {i + 1}" for i in range(_DRAWS))
    return Strip("The same patches, other noise", caption, ("",) * len(given), columns, torch.stack(draws, 1))


def _enlarged(patches: Tensor, shape: ImageShape) -> Tensor:
    """Patches (B, C, side, side) as large as whole pixels allow, in the middle of an image (B, C, H, W) of level 0."""
    times = min(shape.height, shape.width) // patches.shape[-1]
    large = patches.repeat_interleave(times, 2).repeat_interleave(times, 3)
    down, right = shape.height - large.shape[2], shape.width - large.shape[3]
    return F.pad(large, (right // 2, right - right // 2, down // 2, down - down // 2))


def _as_image(masks: Tensor, shape: ImageShape) -> Tensor:
    """Masks (B, 1, H, W) in [0, 1] as uint8 levels (B, C, H, W)."""
    return (masks * (shape.levels - 1)).round().to(torch.uint8).expand(-1, shape.channels, -1, -1)


MODEL = Model("PuzzleGAN", "Lee et al. 2017, arXiv:1703.10730", Config, PuzzleGan, task="completion")
