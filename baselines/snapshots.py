"""Images drawn while a model trains, the same noise each time: what it could draw when, to be scored afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from baselines import checkpoint
from baselines.contract import Draw, GenerativeModel, Noise, Training
from baselines.given import Requests
from baselines.noise import derive_seed

_STEM = "snapshots"


class Snapshots:
    """What was drawn so far, by the number of training images seen."""

    def __init__(self, config: Training, seed: int, requests: Requests | None = None) -> None:
        """requests: what a conditional model is asked for, of the validation split."""
        self.count, self.seed, self.requests = config.snapshot_images, seed, requests
        self.taken: dict[int, Tensor] = {}

    @torch.no_grad()
    def take(self, model: GenerativeModel, seen: int, device: torch.device) -> None:
        """Draw by the model's first sampler; image i hangs on the weights and the seed alone."""
        noise = Noise(derive_seed(self.seed, "snapshots"), device=device)
        given = None if self.requests is None else self.requests.given.at(0, self.count).to(device)
        self.taken[seen] = model.sample(self.count, Draw(model.samplers[0]), noise, given).cpu()


def save(folder: Path, taken: Mapping[int, Tensor]) -> None:
    """Keep uint8 images (n, C, H, W) by training images seen, beside the final weights."""
    if taken:
        checkpoint.save(folder, _STEM, {str(seen): images for seen, images in taken.items()}, {})


def load(folder: Path) -> dict[int, Tensor]:
    """What was kept, in the order of training; empty if nothing was.

    Raises:
        CorruptCheckpointError: if it is damaged.
    """
    found = checkpoint.load(folder, _STEM)
    return {} if found is None else in_order(found[0])


def in_order(named: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """By training images seen, in the order of training, of tensors named by that number."""
    return {int(seen): named[seen] for seen in sorted(named, key=int)}
