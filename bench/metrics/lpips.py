"""LPIPS with VGG16, as torch-fidelity takes it (Zhang et al. 2018, arXiv:1801.03924).

d(x, y) = sum_l mean_hw sum_c w_lc (phi_lc(x) - phi_lc(y))^2 (eq. 1, its w_l squared): phi are the maps of torchvision's
VGG16 after the last ReLU before each pooling, the channels of each position divided by their length; w >= 0 was learned
from people's judgements (version 0.1, "lin"). It is a squared distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.errors import UserError
from bench.metrics.vgg16 import Vgg16Extractor
from bench.metrics.weights_file import Published, as_float32, read_state, sha256_of

PUBLISHED = Published(
    "LPIPS",
    "weights-vgg16-lpips.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",  # the authors' vgg.pth, version 0.1
    "lpips_weights=PATH",
)
SIZE = 64  # of the images that VGG16 sees
_CHANNELS = (64, 128, 256, 512, 512)
_ENDS = (4, 9, 16, 23, 30)  # of the trunk's slices: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's channels on the scale of [-1, 1], as LPIPS rounds them."""
_TINY = 1e-10


class Lpips:
    """`lpips`: 64x64 pixels, float32."""

    name = "lpips-vgg16"

    def __init__(self, vgg16: Vgg16Extractor, weights: Path) -> None:
        """weights: torch-fidelity's file, or the authors' vgg.pth, or the same tensors as safetensors.

        Raises:
            UserError: if it holds something else.
        """
        self.vgg16 = vgg16
        self.linear = [w.to(vgg16.device) for w in read_linear(weights)]
        self.sha256 = sha256_of(weights)

    @classmethod
    def open(cls, vgg16: Path | None, weights: Path | None, device: str = "cpu") -> Lpips:
        """Each with the file given, else with that in the cache, else downloaded into it."""
        extractor = Vgg16Extractor.open(vgg16, device)
        return cls(extractor, weights if weights is not None else PUBLISHED.found())

    def identity(self) -> Mapping[str, Any]:
        """Hashes of both files, layers, resize, dtype."""
        return {
            "weights_sha256": self.sha256,
            "trunk_sha256": self.vgg16.sha256,
            "architecture": "LPIPS 0.1 (lin) on torchvision vgg16",
            "layers": "relu1_2, relu2_2, relu3_3, relu4_3, relu5_3",
            "resize": f"{SIZE}x{SIZE}, by area where both sides are larger, else bilinear (torch-fidelity)",
            "pixels": "real-valued, not rounded, grey repeated to RGB",
            "dtype": "float32",
            "version": 1,
        }

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) of images (B, 1 or 3, H, W) in [-1, 1].

        Raises:
            UserError: if the images have another number of channels.
        """
        if first.shape[1] not in (1, 3):
            raise UserError(f"LPIPS: expected images of 1 or 3 channels, got {first.shape[1]}")
        return lpips(self.vgg16.trunk(), self.linear, first, second)


def lpips(trunk: nn.Module, linear: list[Tensor], first: Tensor, second: Tensor, size: int = SIZE) -> Tensor:
    """Zhang et al., eq. 1, (B,) float64.

    Args:
        trunk: torchvision's VGG16 `features`.
        linear: w of each of the five layers, (channels,).
        first: real-valued images (B, 1 or 3, H, W) in [-1, 1].
        second: as many others.
        size: side that the images are resized to.
    """
    both = _resize(_normalise(torch.cat([first, second])), size)
    total = torch.zeros(len(first), dtype=torch.float64, device=first.device)
    for maps, weights in zip(_slices(trunk, both), linear, strict=True):
        directions = maps / (maps.square().sum(1, keepdim=True).sqrt() + _TINY)
        x, y = directions.chunk(2)
        # channels first: what is left to sum in float64 is one number a position
        total += torch.einsum("bchw,c->bhw", (x - y).square(), weights).double().mean((1, 2))
    return total


def read_linear(path: Path) -> list[Tensor]:
    """The five layers' weights, (channels,) each.

    Raises:
        UserError: if the file cannot be read or holds something else.
    """
    state = as_float32(read_state(path, PUBLISHED))
    names = [f"lin{layer}.model.1.weight" for layer in range(len(_CHANNELS))]
    found = {name: tuple(value.shape) for name, value in state.items()}
    expected = {name: (1, channels, 1, 1) for name, channels in zip(names, _CHANNELS, strict=True)}
    if found != expected:
        raise UserError(f"LPIPS weights: expected {expected} in {path}, got {found}; {PUBLISHED.how()}")
    return [state[name].flatten() for name in names]


def _normalise(x: Tensor) -> Tensor:
    """[-1, 1], grey or RGB, to what VGG16 expects, RGB."""
    shift, scale = (torch.tensor(values, dtype=x.dtype, device=x.device).view(3, 1, 1) for values in (_SHIFT, _SCALE))
    return (x - shift) / scale


def _resize(x: Tensor, size: int) -> Tensor:
    if min(x.shape[2:]) > size:
        return F.interpolate(x, (size, size), mode="area")
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def _slices(trunk: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """The maps (B, channels, h, w) of each of the five layers."""
    start = 0
    layers = list(trunk.children())
    for end in _ENDS:
        for layer in layers[start:end]:
            x = layer(x)
        start = end
        yield x
