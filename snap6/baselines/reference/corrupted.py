"""Real images of the development split, corrupted by a known amount: what the metrics themselves are measured with.

No model. A draw's options say how: `{kind = "noise", level = 0.1}`. Without options the images are those of `real`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from baselines.contract import Draw, FitsLabelled, GenerativeModel, Given, ImageShape, Model, Noise, Replays
from baselines.errors import UserError

KINDS = {
    "noise": "standard deviation of Gaussian noise, as a share of the range of levels",
    "blur": "standard deviation of a Gaussian blur, in pixels",
    "dropped": "how many classes are left out",
    "copies": "how many different images there are, drawn with replacement",
}
"""What `level` means; 0 corrupts nothing, and of copies as many as there are images or more are all of them."""
_COUNTS = ("dropped", "copies")  # kinds whose level is a whole number


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corruption is the draw's."""


@dataclass(frozen=True)
class Corruption:
    """One kind, and how much of it."""

    kind: str
    level: float

    @classmethod
    def of(cls, draw: Draw) -> Corruption | None:
        """What the draw's options ask for; None without options.

        Raises:
            UserError: if they are not a kind with a level that it can have.
        """
        if not draw.options:
            return None
        if set(draw.options) != {"kind", "level"}:
            raise UserError(f"options: expected kind and level, or none, got {dict(draw.options)!r}")
        kind, level = draw.options["kind"], draw.options["level"]
        if not isinstance(kind, str) or kind not in KINDS:
            raise UserError(f"options.kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        if not isinstance(level, int | float) or isinstance(level, bool) or not math.isfinite(level):
            raise UserError(f"options.level: expected a number, the {KINDS[kind]}, got {level!r}")
        least = 1 if kind == "copies" else 0
        if level < least or (kind in _COUNTS and level != int(level)):
            whole = "a whole number, " if kind in _COUNTS else ""
            raise UserError(f"options.level: expected {whole}{least} or more, the {KINDS[kind]}, got {level!r}")
        return cls(kind, float(level))


class Corrupted(GenerativeModel, FitsLabelled, Replays):
    """Keeps the images it is fitted to and shows them in a seeded order, spoilt as the draw says."""

    fits_development: ClassVar[bool] = True
    draw_keys: ClassVar[tuple[str, ...]] = ("options",)
    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,); (0,) where the data has none

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.register_buffer("images", torch.empty(0, *shape.chw, dtype=torch.uint8))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))

    @classmethod
    def check_draw(cls, config: Any, draw: Draw) -> None:
        """Also refuse options that are no corruption."""
        super().check_draw(config, draw)
        Corruption.of(draw)

    def fit_labelled(self, images: Tensor, labels: Tensor | None, noise: Noise) -> None:
        """Keep the images and their classes."""
        self.images = images.clone()
        self.labels = self.labels.new_empty(0) if labels is None else labels.clone()

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """Images number noise.first, ..., noise.first + n - 1 of the permutation of noise.seed, spoilt."""
        self.check_draw(None, draw)
        if not len(self.images):
            raise UserError("corrupted: expected to be fitted to images before it is asked for some, got none")
        corruption = Corruption.of(draw)
        chosen = self.images[self._index(n, corruption, noise).to(self.images.device)]
        if corruption is None or corruption.level == 0 or corruption.kind in _COUNTS:
            return chosen
        values = chosen.float()
        if corruption.kind == "noise":
            deviation = corruption.level * (self.shape.levels - 1)
            values = values + deviation * noise.normal("corruption", n, self.shape.chw).to(values.device)
        else:
            values = gaussian_blur(values, corruption.level)
        return values.round().clamp(0, self.shape.levels - 1).to(torch.uint8)

    def _index(self, n: int, corruption: Corruption | None, noise: Noise) -> Tensor:
        """Which images are shown, (n,); a kind's smaller levels show or leave out a part of what its larger ones do."""
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(noise.seed))
        if corruption is not None and corruption.kind == "copies":
            count = min(int(corruption.level), len(order))
            drawn = noise.uniform("copy", n, ()).double()
            return order[(drawn * count).long().clamp(max=count - 1)]
        if corruption is not None and corruption.kind == "dropped" and corruption.level > 0:
            order = order[self._kept(int(corruption.level), noise)[order]]
        return order[torch.arange(noise.first, noise.first + n) % len(order)]

    def _kept(self, dropped: int, noise: Noise) -> Tensor:
        """Whether each image's class stays, (N,) bool; the classes leave in a seeded order."""
        labels = self.labels.cpu()
        classes = torch.unique(labels)
        if dropped >= len(classes):
            raise UserError(f"options.level: expected fewer than the data's {len(classes)} classes, got {dropped}")
        generator = torch.Generator().manual_seed(noise.fork("classes").seed)
        gone = classes[torch.randperm(len(classes), generator=generator)[:dropped]]
        return ~torch.isin(labels, gone)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # How many images there are is known by the checkpoint alone, not by the config
        for name in ("images", "labels"):
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Float images (B, C, H, W) under a Gaussian of `sigma` pixels, cut at four of them; edges are mirrored."""
    reach = max(1, math.ceil(4 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    for dim in (2, 3):
        size = images.shape[dim]
        # edge pixels are mirrored with themselves (d c b a | a b c d), which works for any reach
        source = torch.arange(-reach, size + reach, device=images.device) % (2 * size)
        source = torch.where(source < size, source, 2 * size - 1 - source)
        padded = images.index_select(dim, source).movedim(dim, -1)
        blurred = functional.conv1d(padded.reshape(-1, 1, padded.shape[-1]), weights.view(1, 1, -1))
        images = blurred.view(*padded.shape[:-1], size).movedim(-1, dim)
    return images


MODEL = Model("Corrupted real images", "the data set's own images, spoilt by a known amount", Config, Corrupted)
