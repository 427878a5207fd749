"""Inception's architecture with random weights that behave, for races and tests where the real ones are not at hand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset


def blobs(n: int, seed: int, size: int = 16) -> Tensor:
    """Smooth random colour images, uint8 (n, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * (1 + 0.2 * seed)
    fine = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (255 * fine.clamp(0, 1)).to(torch.uint8)


def save_weights(folder: Path) -> Path:
    """A state dict with Kaiming-initialised weights and the batch-norm statistics of one pass, as a .pth file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Net

    class Bare(Net):  # type: ignore[misc]
        def load_state_dict(self, *_: object, **__: object) -> None:
            """The constructor insists on loading something."""

    nothing = folder / "nothing.pth"
    torch.save({}, nothing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Bare("inception-v3-compat", ["logits"], feature_extractor_weights_path=str(nothing))
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(blobs(8, 0))
    path = folder / "kaiming.pth"
    torch.save(net.eval().state_dict(), path)
    return path


class Images(TorchDataset[Tensor]):
    """Images as torch-fidelity wants them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]
