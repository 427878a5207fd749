"""CLIP's image towers as torch-fidelity builds them: its network, OpenAI's weights, TensorFlow 1's bilinear resize.

Radford et al. 2021, arXiv:2103.00020. OpenAI's own preprocessing differs (bicubic resize and a crop), so features
equal torch-fidelity's and not those of `clip.load`. As there, weights are rounded to half precision, as OpenAI
published them, and computed with in single.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.errors import UserError
from bench.metrics.network import NetworkExtractor, Normalised, tensorflow_resize
from bench.metrics.weights_file import Published, read_state, sha256_of

STATISTICS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation of the channels, in [0, 1]."""


@dataclass(frozen=True)
class Tower:
    """The sizes of an image tower."""

    width: int
    layers: int | tuple[int, ...]  # of a vision transformer; of each stage of a ResNet
    side: int  # pixels of its input
    features: int
    patch: int | None = None  # of a vision transformer

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Tower:
        """The sizes that a state dict tells.

        Raises:
            KeyError: naming what it lacks.
        """
        if "visual.proj" in state:
            width, features = state["visual.proj"].shape
            layers = sum(name.startswith("visual.") and name.endswith(".attn.in_proj_weight") for name in state)
            patch = state["visual.conv1.weight"].shape[-1]
            grid = math.isqrt(state["visual.positional_embedding"].shape[0])
            return cls(width, layers, grid * patch, features, patch)
        width = state["visual.layer1.0.conv1.weight"].shape[0]
        stages = tuple(len({k.split(".")[2] for k in state if k.startswith(f"visual.layer{i}.")}) for i in range(1, 5))
        grid = math.isqrt(state["visual.attnpool.positional_embedding"].shape[0])
        return cls(width, stages, 32 * grid, state["visual.attnpool.c_proj.weight"].shape[0])

    def __str__(self) -> str:
        kind = "ResNet" if self.patch is None else f"ViT of patch {self.patch},"
        layers = "-".join(map(str, self.layers)) if isinstance(self.layers, tuple) else str(self.layers)
        return f"{kind} width {self.width}, layers {layers}, {self.side} px, {self.features} features"


@dataclass(frozen=True)
class Variant:
    """One of the published networks."""

    name: str  # in a metric's name
    tower: Tower
    published: Published


def _variant(name: str, file: str, sha256: str, tower: Tower) -> Variant:
    cached = f"clip-{file.lower()}-{sha256}.pt"  # as torch-fidelity calls it
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}.pt"
    return Variant(name, tower, Published(f"CLIP ({name})", cached, url, sha256))


VARIANTS: tuple[Variant, ...] = (
    _variant(
        "clip",
        "ViT-B-32",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        Tower(768, 12, 224, 512, 32),
    ),
    _variant(
        "clip-vit-b-16",
        "ViT-B-16",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        Tower(768, 12, 224, 512, 16),
    ),
    _variant(
        "clip-vit-l-14",
        "ViT-L-14",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        Tower(1024, 24, 224, 768, 14),
    ),
    _variant(
        "clip-vit-l-14-336px",
        "ViT-L-14-336px",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        Tower(1024, 24, 336, 768, 14),
    ),
    _variant(
        "clip-rn50",
        "RN50",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        Tower(64, (3, 4, 6, 3), 224, 1024),
    ),
    _variant(
        "clip-rn101",
        "RN101",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        Tower(64, (3, 4, 23, 3), 224, 512),
    ),
)
"""The one called `clip` is ViT-B/32."""


class ClipExtractor(NetworkExtractor):
    """`clip` and its sizes: the image embedding, 512 to 1024 features, not normalised."""

    def __init__(self, variant: Variant, weights: Path, device: str = "cpu") -> None:
        self.variant = variant
        super().__init__(variant.name, variant.published, weights, device)

    @classmethod
    def open(cls, variant: Variant, weights: Path | None, device: str = "cpu") -> ClipExtractor:
        """With the weights given, else those in the cache, else downloaded into it."""
        return cls(variant, weights if weights is not None else variant.published.found(), device)

    def read(self, weights: Path) -> dict[str, Tensor]:
        """The image tower's part of OpenAI's state dict."""
        what, how = f"{self.published.network} weights", self.published.how()
        state = _published_archive(weights, self.published) if _is_torchscript(weights) else None
        state = state or read_state(weights, self.published)
        state = {name: value for name, value in state.items() if name.startswith("visual.")}
        try:
            tower = Tower.of(state)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"{what}: {weights} is no state dict of CLIP (missing or odd: {error}); {how}") from None
        if tower != self.variant.tower:
            other = next((f"; it is {v.name}'s: --extractor {v.name}" for v in VARIANTS if v.tower == tower), "")
            raise UserError(f"{what}: expected a {self.variant.tower} in {weights}, got a {tower}{other}; {how}")
        return state

    def described(self) -> Mapping[str, Any]:
        """Architecture, layer and resize."""
        return {
            "architecture": str(self.variant.tower),
            "layers": "image embedding, not normalised",
            "resize": tensorflow_resize(self.variant.tower.side),
            "normalised": "CLIP's mean and deviation",
        }

    def build(self, state: dict[str, Tensor]) -> nn.Module:
        """torch-fidelity's image tower with these weights."""
        from torch_fidelity.feature_extractor_clip import build_model  # imports torchvision

        tower = self.variant.tower
        # of the text tower it only looks at the width of the embedding
        net = build_model({**state, "text_projection": torch.empty(0, tower.features)}, torch.float32)
        return Normalised(net.visual, tower.side, STATISTICS)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _published_archive(path: Path, published: Published) -> dict[str, Tensor]:
    """The weights in OpenAI's TorchScript archive; one that is not theirs, bit for bit, is not opened."""
    found = sha256_of(path)
    if found != published.sha256:
        raise UserError(
            f"{published.network} weights: {path} is a TorchScript archive, which can hold code, and not the published "
            f"one (SHA-256 {published.sha256}, got {found}). If you trust it, make a state dict of it by `python -c "
            f"\"import torch; torch.save(torch.jit.load('{path}', map_location='cpu').state_dict(), 'clip.pth')\"`; "
            + published.how()
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        state: dict[str, Tensor] = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore
    return state
