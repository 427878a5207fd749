"""What all networks that serve as extractors share: safe weights, exact float32, batches, an identity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.data.likelihood import to_256
from baselines.errors import UserError
from bench.metrics.base import Features
from bench.metrics.weights_file import Published, read_state, sha256_of

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's channels, in [0, 1]."""
_BATCH = 50
_PIXELS = 1 << 24  # of one channel in a batch, so that large images come in smaller batches


class NetworkExtractor(ABC):
    """A published network with fixed weights: float32 passes over uint8 RGB images, float64 features."""

    version = 1

    def __init__(self, name: str, published: Published, weights: Path, device: str = "cpu") -> None:
        """weights: a .pth or .safetensors file. The network itself is built at first use.

        Raises:
            UserError: if the file holds no weights of this network.
        """
        self.name, self.published, self.weights, self.device = name, published, weights, device
        self.state = self.read(weights)
        self.sha256 = sha256_of(weights)

    def read(self, weights: Path) -> dict[str, Tensor]:
        """The state dict in the file, checked so far as can be without building the network."""
        return read_state(weights, self.published)

    @abstractmethod
    def build(self, state: dict[str, Tensor]) -> nn.Module:
        """The network in evaluation mode: uint8 (B, 3, H, W) to a tuple of features (B, d) and perhaps logits (B, K).

        Raises:
            RuntimeError: if the weights do not fit it.
        """

    @abstractmethod
    def described(self) -> Mapping[str, Any]:
        """The architecture, its layers and the resize."""

    def identity(self) -> Mapping[str, Any]:
        """Weights hash, architecture, resize, scaling, dtype."""
        return {
            "weights_sha256": self.sha256,
            **self.described(),
            "pixels": "levels rescaled to 0..255, grey repeated to RGB",
            "dtype": "float32, features float64",
            "version": self.version,
        }

    @cached_property
    def net(self) -> nn.Module:
        """The network, built at first use: seconds that a list of cells need not pay."""
        try:
            net = self.build(self.state)
        except RuntimeError as error:
            first = " ".join(str(error).splitlines()[:3])
            raise UserError(
                f"{self.published.network} weights: they do not fit the network ({first}); {self.published.how()}"
            ) from None
        self.state = {}  # the network has the tensors now
        return net.eval().requires_grad_(False).to(self.device)

    def extract(self, images: Tensor, levels: int) -> Features:
        """Features (N, d), and logits (N, K) where the network classifies, of uint8 images (N, 1 or 3, H, W)."""
        size = max(1, min(_BATCH, _PIXELS // (images.shape[2] * images.shape[3])))
        found = []
        with torch.no_grad(), exact_float32():
            for x in torch.split(images, size):
                found.append([part.cpu().double().numpy() for part in self.net(as_rgb(x, levels).to(self.device))])
        columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        return Features(columns[0], columns[1] if len(columns) > 1 else None)


class Normalised(nn.Module):
    """Resizes and normalises as torch-fidelity does, then applies a network."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, size: int, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        """size: side of the network's input. statistics: mean and deviation of its channels, in [0, 1]."""
        super().__init__()
        self.net, self.size = net, size
        for name, values in zip(("mean", "deviation"), statistics, strict=True):
            self.register_buffer(name, torch.tensor([255 * value for value in values]).view(3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Features (B, d) of uint8 (B, 3, H, W)."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resize

        resized = resize(x.float(), size=(self.size, self.size), align_corners=False)
        return (self.net((resized - self.mean) / self.deviation),)


def tensorflow_resize(size: int) -> str:
    """The resize that torch-fidelity's extractors apply, for an identity."""
    return f"{size}x{size}, TensorFlow 1 bilinear (torch-fidelity)"


def as_rgb(images: Tensor, levels: int) -> Tensor:
    """uint8 (N, 1 or 3, H, W) with levels 0 .. levels - 1 to uint8 (N, 3, H, W) over 0 .. 255."""
    return to_256(images, levels).expand(-1, 3, -1, -1)


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 or bfloat16 in place of float32, whose 10 bits of mantissa or fewer move features by 1e-3."""
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)  # type: ignore
    before = [part.fp32_precision for part in parts]
    mode = backends.cudnn.deterministic, backends.cudnn.benchmark
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        backends.cudnn.deterministic, backends.cudnn.benchmark = True, False
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
        backends.cudnn.deterministic, backends.cudnn.benchmark = mode
