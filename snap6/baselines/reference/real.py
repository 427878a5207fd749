"""Real images that are not the test split, drawn again: the floor of every comparison with the test split.

No model. A generator as good as this one cannot be told from the data by a distance between samples, so its score
is what the number of images and the chance of the split alone amount to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.contract import Draw, Fits, GenerativeModel, Given, ImageShape, Model, Noise, Replays
from baselines.errors import UserError


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


class Real(GenerativeModel, Fits, Replays):
    """Keeps the images it is fitted to and shows them in a seeded order, each once before any comes twice."""

    fits_development: ClassVar[bool] = True
    images: Tensor  # uint8 (N, C, H, W)

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.register_buffer("images", torch.empty(0, *shape.chw, dtype=torch.uint8))

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Keep the images."""
        self.images = images.clone()

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """Images number noise.first, ..., noise.first + n - 1 of the permutation of noise.seed, which repeats."""
        self.check_draw(None, draw)
        if not len(self.images):
            raise UserError("real: expected to be fitted to images before it is asked for some, got none")
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(noise.seed))
        index = order[torch.arange(noise.first, noise.first + n) % len(order)]
        return self.images[index.to(self.images.device)]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # How many images there are is known by the checkpoint alone, not by the config
        stored = state_dict.get(prefix + "images")
        if stored is not None and stored.shape[1:] == self.images.shape[1:]:
            self.images = self.images.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


MODEL = Model("Real images", "the data set's own train and validation images", Config, Real)
